"""What a session store is to atto."""

from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from atto.protocol.sessions import Commit, Snapshot


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

    async def delete(self, session: str) -> None:
        """Removes every trace of the session; no-op if there is none. Writers from before it lose."""
        ...

    def sessions(self, *, after: str = "") -> AsyncIterator[str]:
        """The ids of all sessions that come after `after`, in a stable order of the store's own."""
        ...
