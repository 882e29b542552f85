"""What the tests of the contract stand on: the stores under test, and what must hold of them."""

import pytest
from msgspec.structs import replace

from atto.protocol.sessions import Snapshot
from atto.stores.base import SessionStore
from atto.testing.store_samples import commit


class StoreTests:
    """The stores to be tested."""

    @pytest.fixture
    def store(self) -> SessionStore:
        """A store without any sessions. To be overridden."""
        raise NotImplementedError("override the fixture `store`: it gives the store to be tested, empty")

    @pytest.fixture
    def other_store(self, store: SessionStore) -> SessionStore:
        """Another handle on the data of `store`."""
        return store


def bare(snapshot: Snapshot) -> Snapshot:
    """The snapshot without its token, as other stores may have it too."""
    return replace(snapshot, token=None)


async def load(store: SessionStore, session: str) -> Snapshot:
    """What a session that is there has."""
    loaded = await store.load(session)
    assert loaded is not None
    return loaded


async def holds(store: SessionStore, snapshot: Snapshot) -> None:
    """Fails unless `snapshot` is what the store has of its session."""
    assert bare(await load(store, snapshot.session)) == bare(snapshot)


async def committed(store: SessionStore, session: str, commits: int, *, text: str = "hi") -> Snapshot:
    """A new session after so many commits."""
    snapshot = Snapshot(session=session)
    for number in range(commits):
        snapshot = await store.save(snapshot, commit(f"run-{number + 1}", text, f"{text} {number}"))
    return snapshot
