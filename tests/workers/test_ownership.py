"""One owner a partition, by the broker; takeovers keep the order of turns."""

import asyncio

import pytest

from atto.broker.jetstream import JetStream
from atto.protocol.subjects import Subjects
from atto_workers import Topology
from atto_workers.ownership import Ownership
from atto_workers.spread import share


def owner(jetstream: JetStream, namespace: str, worker: str) -> Ownership:
    return Ownership(jetstream, Subjects(namespace), worker, max_ack_pending=100, replicas=1)


async def names(jetstream: JetStream, namespace: str):
    await Topology(namespace, partitions=4).declare(jetstream)
    return [owner(jetstream, namespace, f"worker{number}") for number in range(4)]


@pytest.mark.parametrize("partition", [None, 0, 3])
async def test_of_many_claimants_one_wins(jetstream: JetStream, namespace: str, partition):
    owners = await names(jetstream, namespace)
    epoch = 0
    for _ in range(10):
        claimed = await asyncio.gather(*(one.claim(partition) for one in owners * 3))
        [winner] = filter(None, claimed)
        known = await owners[0].owners()
        assert known[partition].consumer == winner.consumer
        assert winner.consumer.split("-")[1] == known[partition].worker
        assert winner.epoch > epoch
        epoch = winner.epoch
        await owners[0].remove(winner.consumer)
        await owners[0].remove(winner.consumer)
    assert await owners[0].owners() == {}


async def test_all_partitions_have_owners_of_their_own(jetstream: JetStream, namespace: str):
    first, second, *_ = await names(jetstream, namespace)
    for partition in (None, 0, 2):
        assert await first.claim(partition)
    for partition in (1, 3):
        assert await second.claim(partition)
    known = {partition: owner.worker for partition, owner in (await first.owners()).items()}
    assert known == {None: "worker0", 0: "worker0", 1: "worker1", 2: "worker0", 3: "worker1"}
    for claimed in (await first.owners()).values():
        await first.remove(claimed.consumer)


@pytest.mark.parametrize("partitions", [1, 7, 64])
@pytest.mark.parametrize("workers", [1, 2, 3, 10])
def test_the_spread_is_even_and_moves_little(partitions, workers):
    keys = [None, *range(partitions)]
    members = [f"worker{number}" for number in range(workers)]
    before = share(keys, members)
    assert set(before) == set(keys)
    loads = [list(before.values()).count(member) for member in members]
    assert max(loads) <= -(-len(keys) // workers)
    assert before == share(keys, members[::-1])
    after = share(keys, [*members, "joiner"])
    moved = [key for key in keys if before[key] != after[key]]
    assert len(moved) <= 2 * -(-len(keys) // workers)
