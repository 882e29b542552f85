"""More turns than a worker can carry: it holds a few, the stream holds the rest, and none is lost."""

import asyncio

from atto.models import FinishChunk, ScriptedModel, Stall, TextChunk
from atto_workers import Topology
from atto_workers.credits import BYTES, Credits

CONCURRENCY = 4


async def test_a_worker_takes_no_more_turns_than_it_can_hold(worker, client, namespace, monkeypatch):
    monkeypatch.setattr("atto_workers.worker.TURNS", CONCURRENCY)
    gate = asyncio.Event()
    model = ScriptedModel.of(lambda _: [Stall(gate), TextChunk("done"), FinishChunk("stop")])
    topology = Topology(namespace, partitions=2)
    async with worker(model, topology=topology, concurrency=CONCURRENCY) as busy:
        runs = [await client.submit(f"session-{number}", "go") for number in range(200)]
        while model.active < CONCURRENCY:
            await asyncio.sleep(0)
        held = sum(len(claim.held) for claim in busy._steward.claims.values())
        assert model.active == CONCURRENCY
        # What pulls had already asked for when the credits were spent comes, too.
        assert held <= Credits(2 * CONCURRENCY, BYTES, largest=1 << 20).most(2)[0]
        gate.set()
        results = await asyncio.gather(*(run.result() for run in runs))
        while busy._intake._credits.held_turns:  # the last is let go of just after its terminal event
            await asyncio.sleep(0)
    assert {result.text for result in results} == {"done"}


async def test_one_flooded_session_does_not_stop_the_others_of_its_partition(
    worker, client, namespace, monkeypatch
):
    monkeypatch.setattr("atto_workers.worker.TURNS", CONCURRENCY)
    gate = asyncio.Event()

    def model(request):
        if request.messages[-1].text == "slow":
            return [Stall(gate), TextChunk("late"), FinishChunk("stop")]
        return "at once"

    topology = Topology(namespace, partitions=1)
    async with worker(ScriptedModel.of(model), topology=topology, concurrency=32):
        flood = [await client.submit("flooded", "slow") for _ in range(32)]
        others = await asyncio.gather(*(client.run(f"s{number}", "hi").result() for number in range(50)))
        assert {result.text for result in others} == {"at once"}
        gate.set()
        assert [(await run.result()).version for run in flood] == list(range(1, 33))
