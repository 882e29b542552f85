"""Processes killed in the middle of things; judged by what callers and tools saw."""

import asyncio
import signal
from pathlib import Path

import pytest

from atto import Agent, ScriptedModel, events, tool
from atto.models import call
from atto_client import Client
from atto_workers import Runtime
from tests.integration.child import agent
from tests.integration.histories import check_history
from tests.integration.processes import child


def standing_text(seen):
    """The deltas that were not voided, joined, by step."""
    steps: dict[int, str] = {}
    for event in seen:
        match event:
            case events.TextDelta():
                steps[event.step] = steps.get(event.step, "") + event.text
            case events.StepRestarted():
                steps = {step: text for step, text in steps.items() if step < event.step}
    return steps


async def test_what_a_child_said_is_heard_in_any_order(tmp_path: Path):
    """Or a test hangs whose child was slow to say the one thing and fast to say the other."""
    async with asyncio.timeout(60), child("runtime", tmp_path / "data", tmp_path / "effects") as process:
        assert await process.said("stalled")
        assert await process.said("run_id")


async def test_kill_9_of_broker_and_worker_in_the_middle_of_a_run(tmp_path: Path):
    data_dir, effects = tmp_path / "data", tmp_path / "effects"
    async with asyncio.timeout(60), child("runtime", data_dir, effects) as process:
        run_id = await process.said("run_id")
        await process.said("stalled")
        await process.kill()

    async with Runtime(agent(effects, stalls=False), data_dir=data_dir) as runtime:
        async with asyncio.timeout(30):
            run = runtime.attach("user-123", run_id)
            seen = [event async for event in run]
            result = await run.result()
            after = await (await runtime.submit("user-123", "third")).result()
        snapshot = await runtime.snapshot("user-123")

    assert result.version == 2
    assert result.text.endswith(" 2: stall")
    assert standing_text(seen)[2] == result.text
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert [event.attempt for event in seen if isinstance(event, events.RunStarted)] == [1, 2]
    # The tool's effect may have been repeated, if the kill was faster than its result: under the same key.
    assert len(set(effects.read_text().splitlines())) == 3
    assert after.version == 3
    assert snapshot.state == {"notes": 3}
    check_history(snapshot.messages)


@pytest.mark.leaves_consumers
async def test_the_sessions_of_a_killed_worker_go_on_in_the_other(broker, namespace, tmp_path: Path):
    effects = tmp_path / "effects"
    sessions = [f"session-{number}" for number in range(24)]

    async def answers(client: Client, text: str):
        runs = await asyncio.gather(*(client.submit(session, text) for session in sessions))
        return await asyncio.gather(*(run.result() for run in runs))

    def pids(results):
        return {int(result.text.split()[0]) for result in results}

    async with (
        asyncio.timeout(60),
        Client(broker.url, namespace=namespace) as client,
        child("worker", broker.url, namespace, effects) as first,
    ):
        await first.said("pid")
        assert pids(await answers(client, "one")) == {first.pid}
        async with child("worker", broker.url, namespace, effects) as second:
            await second.said("pid")
            turns = 1
            while pids(await answers(client, "again")) != {first.pid, second.pid}:
                turns += 1
            turns += 1

            await first.kill()
            results = await answers(client, "after the kill")
            assert pids(results) == {second.pid}
            assert {result.version for result in results} == {turns + 1}
            for session in sessions:
                check_history((await client.snapshot(session)).messages)


async def test_a_worker_leaves_on_sigterm_and_the_next_one_goes_on(broker, namespace, tmp_path: Path):
    effects = tmp_path / "effects"
    async with asyncio.timeout(60), Client(broker.url, namespace=namespace) as client:
        async with child("worker", broker.url, namespace, effects) as first:
            await first.said("pid")
            assert (await client.run("s", "one").result()).version == 1
            first.process.send_signal(signal.SIGTERM)
            assert await first.process.wait() == 0
        waiting = await client.submit("s", "two")
        async with child("worker", broker.url, namespace, effects) as second:
            await second.said("pid")
            assert (await waiting.result()).version == 2
            second.process.send_signal(signal.SIGTERM)
            assert await second.process.wait() == 0


@pytest.mark.leaves_consumers
async def test_a_second_signal_ends_a_draining_worker_at_once(broker, namespace, worker, tmp_path: Path):
    async with asyncio.timeout(60), Client(broker.url, namespace=namespace) as client:
        async with child("worker", broker.url, namespace, tmp_path / "effects") as first:
            await first.said("pid")
            run = await client.submit("s", "stall")
            await first.said("stalled")
            first.process.send_signal(signal.SIGINT)
            await first.said("draining")
            first.process.send_signal(signal.SIGTERM)
            assert await first.process.wait() == 128 + signal.SIGTERM
        async with worker(agent(tmp_path / "effects", stalls=False), topology=None, namespace=namespace):
            assert (await run.result()).version == 1


@pytest.mark.leaves_consumers
async def test_an_interrupted_run_and_what_is_queued_behind_it_go_on_in_order(
    broker, namespace, tmp_path: Path, worker
):
    effects = tmp_path / "effects"
    async with asyncio.timeout(60), Client(broker.url, namespace=namespace) as client:
        async with child("worker", broker.url, namespace, effects) as first:
            await first.said("pid")
            runs = [await client.submit("s", text) for text in ("stall", "two", "three")]
            seen: list[events.AnyEvent] = []
            half_answered = asyncio.Event()
            listening = asyncio.create_task(_collect(runs[0], seen, half_answered))
            await half_answered.wait()
            await first.kill()
        async with worker(agent(effects, stalls=False), topology=None, namespace=namespace):
            results = [await run.result() for run in runs]
            snapshot = await client.snapshot("s")
            await listening
        late = [event async for event in client.attach("s", runs[0].run_id)]
    assert [result.version for result in results] == [1, 2, 3]
    assert [message.text for message in snapshot.messages if message.role == "user"] == [
        "stall",
        "two",
        "three",
    ]
    # Whoever listened through the crash and whoever came later saw the same.
    assert late == seen
    assert standing_text(seen)[2] == results[0].text
    # The interrupted run's tool had completed: its result was taken from the journal, not made again.
    assert len(effects.read_text().splitlines()) == 3


async def _collect(run, seen, half_answered):
    async for event in run:
        seen.append(event)
        if isinstance(event, events.TextDelta):
            half_answered.set()


@pytest.mark.parametrize("at_most_once", [False, True])
@pytest.mark.leaves_consumers
async def test_a_tool_that_must_not_run_twice_does_not(worker, client, jetstream, namespace, at_most_once):
    """The journal of a worker that died in the middle of a tool: the tool began, and never ended."""
    ran = []

    @tool(at_most_once=at_most_once)
    def pay() -> str:
        """Pays."""
        ran.append("paid")
        return "paid"

    def model(request):
        return call("pay") if request.messages[-1].role == "user" else request.messages[-1].content[0].content

    model_completed = (
        '{"type":"model_completed","seq":2,"step":1,"message":{"role":"assistant","content":'
        '[{"type":"tool_call","id":"c1","name":"pay"}]}}'
    )
    journal = (
        '{"v":2,"events":[{"type":"run_started","seq":1,"time":"2026-01-01T00:00:00Z","agent":"a"},'
        f'{model_completed},{{"type":"tool_started","seq":3,"step":1,"call_id":"c1","name":"pay"}}]}}'
    )
    paying = Agent("paying", ScriptedModel.of(model), tools=[pay])
    async with worker(paying):
        pass
    await jetstream.publish(f"{namespace}.event.s.r1", journal.encode())
    run = await client.submit("s", "pay", run_id="r1")
    async with worker(paying):
        result = await run.result()
        await client.run("s", "pay again").result()
    if at_most_once:
        assert "outcome of this call is unknown" in result.text
        assert ran == ["paid"]  # by the second turn
    else:
        assert result.text == "paid"
        assert ran == ["paid", "paid"]
