"""Snapshots are a service to outsiders: however many ask, a worker does its own work."""

import asyncio

import msgspec

from atto.broker.jetstream import JetStream
from atto.protocol.messages import Message
from atto.protocol.sessions import Commit, Snapshot, SnapshotPage
from atto.protocol.subjects import Subjects
from atto.stores import MemoryStore
from atto_workers import snapshots
from atto_workers.snapshots import Snapshots

_pages = msgspec.json.Decoder(SnapshotPage)


class Counting(MemoryStore):
    """Loads wait for the gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.loads = self.active = self.most = 0

    async def load(self, session: str) -> Snapshot | None:
        self.loads += 1
        self.active += 1
        self.most = max(self.most, self.active)
        try:
            await self.gate.wait()
            return await super().load(session)
        finally:
            self.active -= 1


async def _asked(jetstream: JetStream, namespace: str, session: str) -> SnapshotPage:
    reply = await jetstream.request(f"{namespace}.snapshot.{session}", timeout=30)
    return _pages.decode(reply)


async def test_many_who_ask_share_loads_and_too_many_are_told(jetstream: JetStream, namespace: str):
    store = Counting()
    await store.save(
        Snapshot(session="popular"), Commit(run_id="r", messages=(Message.user("a"), Message.assistant("b")))
    )
    async with asyncio.TaskGroup() as tasks:
        async with Snapshots(jetstream, Subjects(namespace), store, tasks):
            first = [asyncio.create_task(_asked(jetstream, namespace, f"s{n}")) for n in range(20)]
            while store.active < snapshots.LOADS:
                await asyncio.sleep(0.01)
            popular = [asyncio.create_task(_asked(jetstream, namespace, "popular")) for _ in range(400)]
            while sum(task.done() for task in popular) < 400 - (snapshots.WAITING - 20):
                await asyncio.sleep(0.01)
            refused = [task for task in popular if task.done()]
            assert all("ask again" in (task.result().error or "") for task in refused)
            store.gate.set()
            pages = [await task for task in popular]
            assert not any([(await task).error for task in first])
        # They ask again, and are answered: nothing leaks.
        assert (await _asked_of_another(jetstream, namespace, store)).version == 1
    answered = [page for page in pages if not page.error]
    assert len(answered) == snapshots.WAITING - 20
    assert {page.version for page in answered} == {1}
    assert store.most == snapshots.LOADS
    assert store.loads == 20 + 1 + 1  # one load for all who asked meanwhile


async def _asked_of_another(jetstream: JetStream, namespace: str, store: MemoryStore) -> SnapshotPage:
    async with asyncio.TaskGroup() as tasks, Snapshots(jetstream, Subjects(namespace), store, tasks):
        return await _asked(jetstream, namespace, "popular")
