"""Consumers are listed page by page while others come and go."""

import asyncio
from bisect import insort

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.broker.jetstream import JetStream
from atto.broker.listing import OVERLAP, listed
from atto.protocol.subjects import Subjects
from atto_workers import Topology
from atto_workers.census import Census
from atto_workers.ownership import Ownership, delivery_of

AT_ONCE = 100

numbers = st.integers(0, 1 << 16)
changes = st.lists(st.tuples(st.sets(numbers), numbers, st.integers(0, OVERLAP * 3)), max_size=8)
"""Who comes, and where how many go, in between two pages."""


@given(st.sets(numbers, min_size=200, max_size=400), st.integers(OVERLAP + 1, 100), changes)
async def test_whoever_is_there_all_the_time_is_found(first, limit, between):
    there = sorted(format(number, "05") for number in first)
    ever, always = set(there), set(there)
    reads = 0
    pending = iter(between)

    async def read(offset: int) -> tuple[list[str], int]:
        nonlocal reads
        reads += 1
        page = there[offset : offset + limit], len(there)
        coming, place, going = next(pending, ((), 0, 0))
        for name in {format(number, "05") for number in coming} - set(there):
            insort(there, name)
            ever.add(name)
        at = place % max(1, len(there))
        always.difference_update(there[at : at + going])
        del there[at : at + going]
        return page

    found = await listed(read, name=str)
    assert always <= set(found) <= ever
    assert found == sorted(set(found))
    assert reads <= (1 + len(between)) * (1 + 500 // (limit - OVERLAP))


@given(st.sets(st.integers(0, 300)), st.sets(st.integers(0, 300)), st.integers(OVERLAP + 1, 100))
async def test_a_listing_ends_although_some_are_counted_and_cannot_be_told(told, untold, limit):
    there = sorted(format(number, "03") for number in told | untold)

    async def read(offset: int) -> tuple[list[str], int]:
        return [name for name in there[offset : offset + limit] if int(name) in told], len(there)

    found = await listed(read, name=str)
    assert found == sorted(set(found))
    if len(there) <= limit:
        assert set(map(int, found)) == told


class Interfering:
    """JetStream that lets `happen` happen before the second page of a listing is read."""

    def __init__(self, jetstream: JetStream, listing: str, happen) -> None:
        self.pages = 0
        self._jetstream = jetstream
        self._listing = listing
        self._happen = happen

    def __getattr__(self, name: str):
        return getattr(self._jetstream, name)

    async def api(self, name: str, request=None, **options) -> bytes:
        if name.startswith(self._listing):
            self.pages += 1
            if self.pages == 2:
                await self._happen()
        return await self._jetstream.api(name, request, **options)


async def consume(jetstream: JetStream, namespace: str, names: list[str]) -> None:
    """Consumers of these names, in memory, each of another subject."""
    stream, line = Subjects(namespace).turns_stream, asyncio.Semaphore(AT_ONCE)

    async def create(number: int, name: str) -> None:
        config = {
            "durable_name": name,
            "ack_policy": "explicit",
            "mem_storage": True,
            "filter_subject": f"{namespace}.turn.{number}.*",
        }
        request = {"stream_name": stream, "config": config}
        async with line:
            await jetstream.api(f"CONSUMER.DURABLE.CREATE.{stream}.{name}", request)

    await asyncio.gather(*(create(number, name) for number, name in enumerate(names)))


@pytest.mark.leaves_consumers
@pytest.mark.parametrize("delivers", [True, False])
async def test_no_owner_and_no_delivery_is_missed_because_another_one_goes_meanwhile(
    jetstream: JetStream, namespace: str, delivers
):
    """1,030 names: two pages. Of those that deliver, those that own are a page's first half."""
    owners = [f"p{number}-worker-nonce" for number in range(515 if delivers else 1030)]
    deliveries = [delivery_of(owner) for owner in owners] if delivers else []
    subjects = Subjects(namespace)
    await Topology(namespace, partitions=1030).declare(jetstream)
    await consume(jetstream, namespace, owners + deliveries)

    async def end() -> None:
        await jetstream.api(f"CONSUMER.DELETE.{subjects.turns_stream}.{owners[0]}")

    interfering = Interfering(jetstream, "CONSUMER.NAMES", end)
    ownership = Ownership(interfering, subjects, "worker", max_ack_pending=1, replicas=1)
    sight = await ownership.look()
    assert interfering.pages >= 2
    assert {owner.consumer for owner in sight.owners.values()} >= set(owners[1:])
    assert sight.deliveries == set(deliveries)


@pytest.mark.leaves_consumers
async def test_no_partition_looks_vacant_because_another_one_is_let_go_of(
    jetstream: JetStream, namespace: str
):
    """300 consumers: two pages, too, of those that say how far behind they are."""
    owners = [f"p{number}-worker-nonce" for number in range(300)]
    subjects = Subjects(namespace)
    await Topology(namespace, partitions=300).declare(jetstream)
    await consume(jetstream, namespace, owners)

    async def end() -> None:
        await jetstream.api(f"CONSUMER.DELETE.{subjects.turns_stream}.{owners[0]}")

    interfering = Interfering(jetstream, "CONSUMER.LIST", end)
    views = await Census(interfering, subjects).partitions()
    assert interfering.pages >= 2
    assert [view.partition for view in views if view.worker is None and view.partition] == []
