"""What a worker holds, at the edges of its credits."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atto.broker.jetstream import JetStream
from atto.protocol.subjects import Subjects
from atto_workers import Topology
from atto_workers.credits import Credits
from atto_workers.delivery import Claim, Delivery
from atto_workers.intake import Intake
from atto_workers.ownership import Ownership

sizes = st.integers(0, 1 << 20)


@settings(deadline=None)
@given(st.integers(1, 50), st.integers(1, 4 << 20), st.integers(1, 64), st.data())
def test_what_is_held_stays_within_what_is_promised(
    turns: int, size: int, partitions: int, data: st.DataObject
):
    """Pulls are asked for as an intake does, two a partition at most, and filled in any order."""
    largest = 1 << 20
    credits_ = Credits(turns, size, largest=largest)
    most_turns, most_size = credits_.most(partitions)
    pulls: list[list[int]] = []  # turns and bytes that each may still bring
    held: list[int] = []
    for _ in range(data.draw(st.integers(0, 60))):
        match data.draw(st.sampled_from(["pull", "deliver", "deliver", "end"])):
            case "pull" if not credits_.is_spent and len(pulls) < 2 * partitions:
                pulls.append([credits_.allowance(partitions), credits_.bytes_of_pull(partitions)])
            case "deliver" if pulls:
                pull = pulls[data.draw(st.integers(0, len(pulls) - 1))]
                came = data.draw(st.integers(0, min(largest, pull[1])))
                pull[0], pull[1] = pull[0] - 1, pull[1] - came
                credits_.take(came)
                held.append(came)
                if not pull[0]:
                    pulls.remove(pull)
            case "end" if held:
                credits_.give_back(held.pop(data.draw(st.integers(0, len(held) - 1))))
            case _:
                pass
        assert (credits_.held_turns, credits_.held_size) == (len(held), sum(held))
        assert credits_.held_turns <= most_turns
        assert credits_.held_size <= most_size
    for came in held:
        credits_.give_back(came)
    assert not credits_.is_spent


@pytest.mark.parametrize("seed", range(4))
async def test_every_turn_is_delivered_in_order_whatever_it_weighs(
    jetstream: JetStream, namespace: str, seed: int
):
    """Turns of all sizes, the largest that the broker takes among them, past an intake with few credits."""
    import random

    drawn = random.Random(seed)
    largest = jetstream.connection.max_payload
    allowed = Credits(drawn.randint(1, 8), drawn.choice([1, 10_000, 2 << 20]), largest=largest)
    most = allowed.most(2)
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()
    weights = [drawn.choice([10, 1_000, 100_000, 700_000, largest - 300]) for _ in range(30)]
    async with _intake(jetstream, namespace, allowed, arrived) as intake:
        for number, weight in enumerate(weights):
            body = b'{"input":"' + b"x" * weight + b'"}'
            await jetstream.publish(f"{namespace}.turn.s{number % 5}", body[: largest - 200])
        seen: dict[str, list[int]] = {}
        async with asyncio.timeout(60):
            for _ in weights:
                delivery = await arrived.get()
                assert allowed.held_turns <= most[0]
                assert allowed.held_size <= most[1]
                seen.setdefault(delivery.token, []).append(delivery.sequence)
                await jetstream.connection.publish(delivery.reply, b"+ACK")
                delivery.claim.held.pop(delivery.sequence, None)
                intake.finished(delivery)
        assert sum(map(len, seen.values())) == len(weights)
        assert all(sequences == sorted(sequences) for sequences in seen.values())
        assert (allowed.held_turns, allowed.held_size) == (0, 0)


@asynccontextmanager
async def _intake(jetstream: JetStream, namespace: str, allowed: Credits, arrived: asyncio.Queue[Delivery]):
    subjects = Subjects(namespace)
    await Topology(namespace, partitions=2).declare(jetstream)
    ownership = Ownership(jetstream, subjects, "worker", max_ack_pending=100, replicas=1)
    tenures = [await ownership.claim(partition) for partition in range(2)]
    doubted: list[Claim] = []
    intake = Intake(
        jetstream.connection,
        subjects,
        credits=allowed,
        deliver=arrived.put_nowait,
        doubt=doubted.append,
        missed=doubted.append,
    )
    async with intake:
        for partition, tenure in enumerate(tenures):
            assert tenure is not None
            await intake.open(Claim(partition, tenure, 0))
        serving = asyncio.create_task(intake.serve())
        try:
            yield intake
            assert not doubted  # a pull that is out of bytes is no loss
        finally:
            serving.cancel()
            await asyncio.wait([serving])
            for tenure in tenures:
                assert tenure is not None
                await ownership.remove(tenure.consumer)
