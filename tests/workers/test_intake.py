"""What an intake makes of consumers that are not what they were."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from atto.broker.jetstream import JetStream
from atto.protocol.subjects import Subjects
from atto_workers import Topology
from atto_workers.credits import Credits
from atto_workers.delivery import Claim, Delivery
from atto_workers.intake import Intake
from atto_workers.ownership import Ownership, Tenure

TURNS = 5


class Taken:
    """Takes turns in; none of them is ever acknowledged, as if that had got lost."""

    def __init__(self, jetstream: JetStream, namespace: str) -> None:
        self.subjects = Subjects(namespace)
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self.doubted: list[Claim] = []
        self.missed: list[Claim] = []
        self._jetstream = jetstream
        self._ownership = Ownership(jetstream, self.subjects, "worker", max_ack_pending=100, replicas=1)

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Tenure]:
        await Topology(self.subjects.namespace, partitions=1).declare(self._jetstream)
        tenure = await self._ownership.claim(0)
        assert tenure is not None
        intake = Intake(
            self._jetstream.connection,
            self.subjects,
            credits=Credits(100, 1 << 20, largest=1 << 20),
            deliver=self.deliveries.put_nowait,
            doubt=self.doubted.append,
            missed=self.missed.append,
        )
        async with intake:
            await intake.open(Claim(0, tenure, 0))
            serving = asyncio.create_task(intake.serve())
            try:
                yield tenure
            finally:
                serving.cancel()
                await asyncio.wait([serving])
                await self._ownership.remove(tenure.consumer)

    async def submit(self) -> None:
        await self._jetstream.publish(self.subjects.turn("s"), b"{}")

    async def next(self) -> list[Delivery]:
        return [await self.deliveries.get() for _ in range(TURNS)]

    async def begin_anew(self, tenure: Tenure) -> None:
        """What a node of a cluster does with a consumer in its memory when it is started again."""
        await self._jetstream.api(f"CONSUMER.DELETE.{self.subjects.turns_stream}.{tenure.delivery}")
        await self.deliver(tenure)

    async def deliver(self, tenure: Tenure) -> None:
        assert await self._ownership.deliver(0, tenure.consumer)


async def test_of_a_consumer_that_begins_anew_no_turn_counts_as_delivered_for_the_first_time(
    jetstream: JetStream, namespace: str
):
    taken = Taken(jetstream, namespace)
    async with asyncio.timeout(10), taken.serving() as tenure:
        for _ in range(TURNS):
            await taken.submit()
        first = await taken.next()
        assert all(delivery.fresh for delivery in first)
        await taken.begin_anew(tenure)
        again = await taken.next()
        assert [delivery.sequence for delivery in again] == [delivery.sequence for delivery in first]
        assert not any(delivery.fresh for delivery in again)
        assert first[0].claim in taken.doubted
        assert not taken.missed


async def test_a_turn_that_got_the_number_of_one_that_the_broker_lost_is_not_taken_for_it(
    jetstream: JetStream, namespace: str
):
    """Nor acknowledged by it: the claim is begun anew, and then the turn comes."""
    taken = Taken(jetstream, namespace)
    async with asyncio.timeout(10), taken.serving() as tenure:
        await taken.submit()
        lost = await taken.deliveries.get()
        claim = lost.claim
        claim.held[lost.sequence] = lost
        await jetstream.api(f"STREAM.DELETE.{taken.subjects.turns_stream}")
        await Topology(namespace, partitions=1).declare(jetstream)
        await taken.submit()
        await taken.deliver(tenure)
        while not taken.missed:
            await asyncio.sleep(0.01)
        assert taken.missed[0] is claim
        assert not lost.reply
        assert lost.sequence not in claim.held
