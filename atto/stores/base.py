"""What a session store is to atto."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Protocol, Self, runtime_checkable

from atto.protocol.sessions import Commit, Snapshot


@runtime_checkable
class Packable(Protocol):
    """A token that takes much memory, and can do with less while its session is idle."""

    def pack(self) -> bytes:
        """All of it. Not compressed: that is done to snapshot and token together, which much repeats."""
        ...

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """The token as it was, before a store sees it again."""
        ...


@runtime_checkable
class SessionStore(Protocol):
    """Keeps the committed snapshot of each session.

    A store is safe to use from many tasks at once. A turn costs what the turn weighs: `save` writes what
    the commit adds, not the whole history. `atto.testing.store_contract` is the suite that every store
    passes.
    """

    async def load(self, session: str) -> Snapshot | None:
        """The last committed snapshot, or None for a session that has none.

        Raises `StoreUnavailable`, `StoreCorrupt`.
        """
        ...

    async def save(self, base: Snapshot, commit: Commit) -> Snapshot:
        """Commits one turn on top of `base`, and returns the snapshot that it makes (version one higher).

        `base` is what `load` or an earlier `save` returned, or `Snapshot(session=…)` for a new session; it
        stays as it is, so a failed save needs no roll-back. Raises `ConcurrentWrite`, with nothing changed,
        if the session is no longer at `base`; `StoreUnavailable` if the outcome is unknown.
        """
        ...

    async def fence(self, base: Snapshot) -> Snapshot:
        """The session as it is at `base`, under a new token: whoever holds the old one can save no more, be
        its save on its way already.

        Where there is no session yet, there is one from here on, at version 0. Raises as `save` does.
        """
        ...

    async def put(self, snapshot: Snapshot) -> Snapshot:
        """Creates a session that is not there as `snapshot` says: version, history, state, recent runs.

        For imports. Raises `ConcurrentWrite`, with nothing changed, if there is such a session;
        `StoreUnavailable` if the outcome is unknown.
        """
        ...

    async def delete(self, session: str, *, idle_since: datetime | None = None) -> bool:
        """Removes every trace of the session, and tells whether there was one. Writers from before it lose.

        With `idle_since` only if its last commit is older than that; decided and done in one step, so that
        no turn that is committed meanwhile is lost.
        """
        ...

    def sessions(self, *, after: str = "", idle_since: datetime | None = None) -> AsyncIterator[str]:
        """The ids of all sessions that come after `after`, in the order of their code points.

        With `idle_since` only of those whose last commit is older than that.
        """
        ...
