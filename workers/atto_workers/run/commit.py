"""Loading and committing a session, with the store's bad moments waited out."""

from collections.abc import Awaitable, Callable

from atto.aio.user_code import words
from atto.protocol.errors import ConcurrentWrite, StoreError, StoreUnavailable, TopologyMissing
from atto.protocol.sessions import Commit, Snapshot
from atto.stores import SessionStore
from atto_workers.backoff import Backoff
from atto_workers.delivery import Claim
from atto_workers.run.standing import GaveUp
from atto_workers.turn_context import user_code

STORE_TRIES = 6
"""How often a store may fail a turn before the turn fails: with the pauses, about ten seconds."""
_PAUSE = 0.4
_PAUSE_CAP = 5.0
_AWAY = (StoreUnavailable, TopologyMissing)
# The second: deleted while workers run. Its operator can mend that, so it is waited for without an end.


async def load(store: SessionStore, session: str, claim: Claim, *, tries: int | None) -> Snapshot:
    """The session as committed, version 0 if it is new.

    `tries`: None waits for the store as long as the claim is open. Raises `StoreUnavailable`, `GaveUp`.
    """
    failures, backoff = 0, _backoff(claim)
    while True:
        try:
            with user_code("store", type(store).__name__):
                return await store.load(session) or Snapshot(session=session)
        except _AWAY as error:
            failures += not isinstance(error, TopologyMissing)
            if failures == tries:
                raise StoreUnavailable(words(error)) from error
            await _pause(backoff)


async def save(
    store: SessionStore,
    base: Snapshot,
    commit: Commit,
    claim: Claim,
    *,
    make_sure: Callable[[], Awaitable[None]],
    tries: int | None = STORE_TRIES,
) -> Snapshot:
    """Commits once, whatever the store loses on the way.

    A save whose outcome is unknown is looked up under its run id before it is tried again, never guessed.
    Raises `ConcurrentWrite` if another writer was first, `StoreUnavailable` if the commit is certainly not
    there after `tries` (None: it is waited for), `GaveUp`; and what `make_sure` raises where the claim does
    not stand.
    """
    failures, backoff = 0, None
    while True:
        try:
            with user_code("store", type(store).__name__):
                return await store.save(base, commit)
        except ConcurrentWrite:
            found = await load(store, base.session, claim, tries=None)
            if found.record(commit.run_id) is None:
                raise
            return found
        except _AWAY as error:
            found = await load(store, base.session, claim, tries=None)
            if found.record(commit.run_id) is not None:
                return found
            if found.version != base.version:
                raise ConcurrentWrite(f"session {base.session!r} has moved on") from None
            failures += not isinstance(error, TopologyMissing)
            if failures == tries:
                raise StoreUnavailable(words(error)) from error
            base = found
            # A successor may have fenced off what was found: a token is only good with a claim that stood
            # after it was read.
            await make_sure()
            backoff = backoff or _backoff(claim)
            await _pause(backoff)
        except Exception as error:
            if isinstance(error, StoreError):
                raise
            return await _saved_in_spite(store, base, commit, claim, error)


async def _saved_in_spite(
    store: SessionStore, base: Snapshot, commit: Commit, claim: Claim, error: Exception
) -> Snapshot:
    """After a defect of the store, which may have saved all the same. Raises `error` if it has not."""
    found = await load(store, base.session, claim, tries=STORE_TRIES)
    if found.record(commit.run_id) is None:
        raise error
    return found


def _backoff(claim: Claim) -> Backoff:
    return Backoff(base=_PAUSE, cap=_PAUSE_CAP, until=lambda: not claim.is_open)


async def _pause(backoff: Backoff) -> None:
    if not await backoff.pause():
        raise GaveUp
