import subprocess
import sys

import pytest

from atto.protocol.errors import ConcurrentWrite
from atto.protocol.sessions import Snapshot
from atto.stores import MemoryStore, NotStorable
from atto.testing.store_contract import StoreContract
from atto.testing.store_samples import commit


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self):
        return MemoryStore()


async def test_a_snapshot_of_another_store_is_no_base():
    base = await MemoryStore().save(Snapshot(session="s"), commit("run-1"))
    other = MemoryStore()
    await other.save(Snapshot(session="s"), commit("run-1"))
    with pytest.raises(ConcurrentWrite):
        await other.save(base, commit("run-2"))


async def test_a_state_may_be_nested_as_deep_as_what_travels():
    def nested(depth):
        return [nested(depth - 1)] if depth else 1

    store = MemoryStore()
    saved = await store.save(Snapshot(session="s"), commit("run-1", deep=nested(90)))
    assert (await store.load("s")).state == saved.state
    with pytest.raises(NotStorable, match="100 levels deep"):
        await store.save(saved, commit("run-2", deep=nested(101)))


@pytest.mark.parametrize("module", ["atto.stores", "atto.stores.memory", "atto.testing.store_contract"])
def test_without_the_kv_store_nats_is_not_loaded(module):
    program = f"import sys, {module}; sys.exit('nats' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
