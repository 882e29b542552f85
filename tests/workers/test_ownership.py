"""One owner a partition, by the broker; takeovers keep the order of turns."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.broker.jetstream import JetStream
from atto.protocol.subjects import Subjects
from atto_workers import Topology
from atto_workers.ownership import Ownership
from atto_workers.spread import _weights, share


def owner(jetstream: JetStream, namespace: str, worker: str, *, replicas: int = 1) -> Ownership:
    return Ownership(jetstream, Subjects(namespace), worker, max_ack_pending=100, replicas=replicas)


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


async def test_what_a_former_owner_has_delivered_to_it_still_is_taken_away(
    jetstream: JetStream, namespace: str
):
    """It died between the two steps of letting go, or of taking."""
    first, second, *_ = await names(jetstream, namespace)
    former = await first.claim(1)
    assert former is not None
    await jetstream.api(f"CONSUMER.DELETE.{namespace}-TURNS.{former.consumer}")
    successor = await second.claim(1)
    assert successor is not None
    assert (await second.look()).deliveries == {successor.delivery}
    assert not await first.deliver(1, former.consumer)
    await second.remove(successor.consumer)
    assert await second.look() == ({}, frozenset())


async def test_a_worker_that_died_before_there_were_replicas_leaves_nothing_in_the_way(
    jetstream: JetStream, namespace: str
):
    first, *_ = await names(jetstream, namespace)
    former = await first.claim(1)
    assert former is not None
    await owner(jetstream, namespace, "later", replicas=3).remove(former.consumer)
    assert await first.look() == ({}, frozenset())


async def test_a_partition_is_left_to_an_owner_of_an_earlier_release(jetstream: JetStream, namespace: str):
    """Its one consumer owns and delivers."""
    owners = await names(jetstream, namespace)
    earlier = {
        "durable_name": "p1-earlier-nonce",
        "filter_subject": Subjects(namespace).partition(1)[0],
        "ack_policy": "explicit",
    }
    stream = f"{namespace}-TURNS"
    await jetstream.api(
        f"CONSUMER.DURABLE.CREATE.{stream}.p1-earlier-nonce", {"stream_name": stream, "config": earlier}
    )
    assert await owners[0].claim(1) is None
    known = await owners[0].owners()
    assert known[1].worker == "earlier"
    assert len(known) == 1
    await owners[0].remove(known[1].consumer)
    tenure = await owners[0].claim(1)
    assert tenure is not None
    await owners[0].remove(tenure.consumer)


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
    assert len(moved) <= 2 * -(-len(keys) // workers) + 2  # a place that is taken makes a chain of moves


@given(st.integers(1, 60), st.sets(st.text("abcdef0123456789", min_size=1), min_size=1, max_size=20))
def test_the_spread_is_what_taking_the_heaviest_pair_again_and_again_gives(partitions, members):
    keys = [None, *range(partitions)]
    limit = -(-len(keys) // len(members))
    pairs = [
        (_weights(member, 62)[0 if key is None else key + 1], key, member)
        for key in keys
        for member in members
    ]
    load, expected = dict.fromkeys(members, 0), {}
    for _, key, member in sorted(pairs, key=lambda pair: pair[0], reverse=True):
        if key not in expected and load[member] < limit:
            expected[key] = member
            load[member] += 1
    assert share(keys, members) == expected


def test_a_spread_over_nobody_is_refused():
    with pytest.raises(ValueError, match="nobody"):
        share([None, 0], [])
