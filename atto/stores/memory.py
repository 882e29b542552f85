"""Sessions in the memory of one process: for tests, and for what need not outlive it."""

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import NamedTuple

from msgspec import Raw, Struct
from msgspec.structs import replace

from atto.protocol.ids import encode_session
from atto.protocol.sessions import Commit, RunRecord, Snapshot
from atto.stores.encoding import (
    EMPTY_CONTINUATION,
    EMPTY_STATE,
    EncodedCommit,
    conflict,
    decode_continuation,
    decode_messages,
    decode_records,
    decode_state,
    encode_commit,
    encode_whole,
    is_new,
    is_newest,
    occupied,
)


class _Life:
    """The life of a session from its creation to its deletion, told apart from others by identity."""


class _Token(NamedTuple):
    life: _Life
    fences: int


class _Stored(Struct, frozen=True):
    token: _Token
    version: int
    messages: tuple[bytes, ...]
    state: Raw
    runs: tuple[RunRecord, ...]
    records: tuple[bytes, ...]
    continuation: Raw
    committed_at: datetime


def _now() -> datetime:
    return datetime.now(UTC)


class MemoryStore:
    """Keeps each session as JSON in a dictionary. Every call takes effect at once or not at all.

    `clock` gives the time of each commit, by which idle sessions are found.
    """

    def __init__(self, *, clock: Callable[[], datetime] = _now) -> None:
        self._sessions: dict[str, _Stored] = {}
        self._clock = clock

    def __repr__(self) -> str:
        return f"MemoryStore({len(self._sessions)} sessions)"

    async def load(self, session: str) -> Snapshot | None:
        """As `SessionStore.load`."""
        encode_session(session)
        stored = self._sessions.get(session)
        if stored is None:
            return None
        return Snapshot(
            session=session,
            version=stored.version,
            messages=decode_messages(stored.messages),
            state=decode_state(stored.state),
            runs=stored.runs,
            records=decode_records(stored.records),
            continuation=decode_continuation(stored.continuation),
            token=stored.token,
        )

    async def save(self, base: Snapshot, commit: Commit) -> Snapshot:
        """As `SessionStore.save`. Raises `NotStorable` for what has no JSON form."""
        encode_session(base.session)
        added = encode_commit(commit)
        stored = self._sessions.get(base.session)
        if not _is_at(stored, base):
            raise conflict(base, gone=_is_gone(stored, base))
        saved = base.after(added.commit)
        return self._keep(saved, added, stored)

    async def fence(self, base: Snapshot) -> Snapshot:
        """As `SessionStore.fence`."""
        encode_session(base.session)
        stored = self._sessions.get(base.session)
        if not _is_at(stored, base):
            raise conflict(base, gone=_is_gone(stored, base))
        before = stored or _empty(self._clock())
        fenced = replace(before, token=before.token._replace(fences=before.token.fences + 1))
        self._sessions[base.session] = fenced
        return replace(base, token=fenced.token)

    async def put(self, snapshot: Snapshot) -> Snapshot:
        """As `SessionStore.put`. Raises `NotStorable` for what is no committed session."""
        encode_session(snapshot.session)
        whole = encode_whole(snapshot)
        if snapshot.session in self._sessions:
            raise occupied(snapshot.session)
        return self._keep(replace(snapshot, messages=whole.commit.messages), whole, None)

    async def delete(self, session: str, *, idle_since: datetime | None = None) -> bool:
        """As `SessionStore.delete`."""
        encode_session(session)
        stored = self._sessions.get(session)
        if stored is None or not _is_idle(stored, idle_since):
            return False
        del self._sessions[session]
        return True

    async def sessions(self, *, after: str = "", idle_since: datetime | None = None) -> AsyncIterator[str]:
        """As `SessionStore.sessions`; those that there are when the listing begins."""
        found = [name for name, stored in self._sessions.items() if _is_idle(stored, idle_since)]
        for session in sorted(session for session in found if session > after):
            yield session

    def _keep(self, saved: Snapshot, added: EncodedCommit, before: _Stored | None) -> Snapshot:
        before = before or _empty(self._clock())
        stored = _Stored(
            before.token,
            saved.version,
            before.messages + tuple(map(bytes, added.messages)),
            added.applied_to(before.state),
            saved.runs,
            (() if added.commit.drop_records else before.records) + tuple(map(bytes, added.records)),
            added.continuation or before.continuation,
            self._clock(),
        )
        self._sessions[saved.session] = stored
        return replace(saved, state=decode_state(stored.state), token=stored.token)


def _empty(now: datetime) -> _Stored:
    return _Stored(_Token(_Life(), 0), 0, (), EMPTY_STATE, (), (), EMPTY_CONTINUATION, now)


def _is_at(stored: _Stored | None, base: Snapshot) -> bool:
    if stored is None:
        return is_new(base)
    if base.token is None:
        return is_newest(base, Snapshot(session=base.session, version=stored.version, runs=stored.runs))
    return base.token == stored.token and base.version == stored.version


def _is_gone(stored: _Stored | None, base: Snapshot) -> bool:
    return stored is None or (isinstance(base.token, _Token) and base.token.life is not stored.token.life)


def _is_idle(stored: _Stored, since: datetime | None) -> bool:
    return since is None or stored.committed_at < since
