"""Sessions in the memory of one process: for tests, and for what need not outlive it."""

from collections.abc import AsyncIterator

from msgspec import Raw, Struct
from msgspec.structs import replace

from atto.protocol.ids import encode_session
from atto.protocol.sessions import Commit, RunRecord, Snapshot
from atto.stores.encoding import (
    EMPTY_STATE,
    EncodedCommit,
    conflict,
    decode_messages,
    decode_state,
    encode_commit,
)


class _Generation:
    """The life of a session from its creation to its deletion, told apart from others by identity."""


class _Stored(Struct, frozen=True):
    generation: _Generation
    version: int
    messages: tuple[bytes, ...]
    state: Raw
    runs: tuple[RunRecord, ...]


class MemoryStore:
    """Keeps each session as JSON in a dictionary. Every call takes effect at once or not at all."""

    def __init__(self) -> None:
        self._sessions: dict[str, _Stored] = {}

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
            token=stored.generation,
        )

    async def save(self, base: Snapshot, commit: Commit) -> Snapshot:
        """As `SessionStore.save`. Raises `NotStorable` for what has no JSON form."""
        encode_session(base.session)
        added = encode_commit(commit)
        stored = self._sessions.get(base.session)
        if not _is_at(stored, base):
            raise conflict(base)
        saved = base.after(added.commit)
        stored = _append(stored, added, saved.runs)
        self._sessions[base.session] = stored
        return replace(saved, state=decode_state(stored.state), token=stored.generation)

    async def delete(self, session: str) -> None:
        """As `SessionStore.delete`."""
        encode_session(session)
        self._sessions.pop(session, None)

    async def sessions(self, *, after: str = "") -> AsyncIterator[str]:
        """As `SessionStore.sessions`; sorted."""
        for session in sorted(session for session in self._sessions if session > after):
            yield session


def _is_at(stored: _Stored | None, base: Snapshot) -> bool:
    if stored is None:
        return base.version == 0
    same = base.runs == stored.runs if base.token is None else base.token is stored.generation
    return same and base.version == stored.version


def _append(stored: _Stored | None, added: EncodedCommit, runs: tuple[RunRecord, ...]) -> _Stored:
    before = stored or _Stored(_Generation(), 0, (), EMPTY_STATE, ())
    return _Stored(
        before.generation,
        before.version + 1,
        before.messages + tuple(map(bytes, added.messages)),
        added.applied_to(before.state),
        runs,
    )
