"""Several workers: an even spread, takeovers, hand-overs, a rolling deploy."""

import asyncio
import contextlib
import signal
from pathlib import Path

import pytest

from atto import Agent, events, tool
from atto.models import FinishChunk, ScriptedModel, Stall, TextChunk, call
from atto.protocol.errors import BrokerUnavailable
from atto.protocol.events import is_terminal
from atto_client import Client
from atto_workers import Topology, steward
from atto_workers.ownership import Ownership
from tests.integration.child import agent
from tests.integration.histories import check_history
from tests.integration.processes import child
from tests.integration.test_main_job import echo

PARTITIONS = 16


def topology(namespace: str) -> Topology:
    return Topology(namespace, partitions=PARTITIONS)


async def spread_over(workers, partitions: int = PARTITIONS) -> None:
    """Returns once every partition has one owner, and no worker more than its even share."""
    limit = -(-(partitions + 1) // len(workers))
    while not (
        sorted(number for worker in workers for number in worker.partitions) == list(range(partitions))
        and all(len(worker.partitions) <= limit for worker in workers)
    ):
        await asyncio.sleep(0.01)


async def test_workers_that_come_and_go_share_the_partitions_evenly(worker, namespace):
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(20):
        workers = []
        for _ in range(3):
            workers.append(await stack.enter_async_context(worker(echo, topology=topology(namespace))))
            await spread_over(workers)
        async with worker(echo, topology=topology(namespace)) as fourth:
            await spread_over([*workers, fourth])
        await spread_over(workers)


async def test_one_worker_can_own_very_many_partitions(worker, client, namespace):
    """More than half of the consumers that a stream has room for by default."""
    many = 512
    async with asyncio.timeout(60), worker(echo, topology=Topology(namespace, partitions=many)) as alone:
        assert len(alone.partitions) == many
        assert (await client.run("s", "hi").result()).text == "1: hi"


async def test_a_rolling_deploy_under_load_fails_no_turn(worker, client, namespace):
    sessions = [f"session-{number}" for number in range(20)]
    stop = asyncio.Event()

    async def talk(session: str) -> int:
        turns = 0
        while not stop.is_set():
            result = await client.run(session, f"turn {turns}").result()
            turns += 1
            assert (result.version, result.text) == (turns, f"{turns}: turn {turns - 1}")
        return turns

    async with asyncio.timeout(40), contextlib.AsyncExitStack() as stack:
        old = [await stack.enter_async_context(worker(echo, topology=topology(namespace))) for _ in range(3)]
        await spread_over(old)
        async with asyncio.TaskGroup() as tasks:
            talks = [tasks.create_task(talk(session)) for session in sessions]
            running = list(old)
            for leaving in old:
                joining = await stack.enter_async_context(worker(echo, topology=topology(namespace)))
                await leaving.__aexit__(None, None, None)
                running = [*[one for one in running if one is not leaving], joining]
                await spread_over(running)
            stop.set()
        assert sum(task.result() for task in talks) > len(sessions)
        for session in sessions:
            check_history((await client.snapshot(session)).messages)


async def test_a_former_claim_that_turns_out_to_be_lost_leaves_its_successor_alone(worker, client):
    async with asyncio.timeout(10), worker(echo) as alone:
        steward_ = alone._steward
        former = steward_.claims[0]
        steward_.renew(former)
        while steward_.claims.get(0) in {None, former}:
            await asyncio.sleep(0)
        successor = steward_.claims[0]
        assert await steward_.verify(former)
        assert former.is_lost
        assert steward_.claims[0] is successor
        assert successor.is_open
        assert (await client.run("s", "hi").result()).text == "1: hi"


async def test_a_claim_that_was_found_lost_is_given_up_before_anything_else_is_asked(worker, monkeypatch):
    """A worker that wakes up from a pause asks who is here, too; a commit must not slip in meanwhile."""
    asked, answer = asyncio.Event(), asyncio.Event()
    async with worker(echo) as running:
        steward, claim = running._steward, running._steward.claims[0]
        roll = steward._presence.roll

        async def slow_roll(owners):
            asked.set()
            await answer.wait()
            return await roll(owners)

        monkeypatch.setattr(steward._presence, "roll", slow_roll)
        asked.clear()
        await steward._ownership.remove(claim.tenure.consumer)
        steward.look()
        await asked.wait()
        assert not await steward.assure(claim)
        answer.set()


async def test_a_joiner_does_not_disturb_what_runs(worker, client, namespace):
    gate, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel.of(
        lambda _: [TextChunk("a"), Stall(gate, reached), TextChunk("b"), FinishChunk("stop")]
    )
    async with worker(model, topology=topology(namespace), grace=30) as first:
        runs = [await client.submit(f"s{number}", "go") for number in range(4)]
        while model.active < 4:
            await asyncio.sleep(0.01)
        async with worker(model, topology=topology(namespace)) as second:
            while not second.partitions:  # those in which nothing runs
                await asyncio.sleep(0.01)
            gate.set()
            seen = [[event async for event in run] for run in runs]
            await spread_over([first, second])
    for events_of_run in seen:
        assert not any(isinstance(event, events.StepRestarted) for event in events_of_run)
        assert events_of_run[-1].text == "ab"


async def test_a_saturated_worker_hands_over_the_sessions_that_only_wait_for_a_slot(
    worker, client, namespace, caplog
):
    """The one slot is taken by a run that does not end: the partitions of the others move at once."""
    gate, reached = asyncio.Event(), asyncio.Event()
    hanging = ScriptedModel.of(lambda _: [Stall(gate, reached), TextChunk("late"), FinishChunk("stop")])
    options = {"topology": topology(namespace), "grace": 3600.0}
    async with asyncio.timeout(60), worker(hanging, concurrency=1, **options) as first:
        slow = await client.submit("slow", "go")
        await reached.wait()
        sessions = [f"s{number}" for number in range(2 * PARTITIONS)]
        waiting = [await client.submit(session, "hi") for session in sessions]
        async with worker(echo, **options) as second:
            # Each partition has a session that waits.
            while not second.partitions:  # how many are its share depends on its name
                await asyncio.sleep(0.01)
            answered = [asyncio.create_task(run.result()) for run in waiting]
            await asyncio.wait(answered, return_when=asyncio.FIRST_COMPLETED)
            assert hanging.active == 1
            gate.set()
            assert (await slow.result()).text == "late"
            for task in answered:
                await task
    assert first.partitions == frozenset()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_what_does_not_end_within_the_grace_time_goes_on_elsewhere(worker, client, namespace):
    gate, reached = asyncio.Event(), asyncio.Event()
    hanging = ScriptedModel.of(lambda _: [TextChunk("a"), Stall(gate, reached), FinishChunk("stop")])
    async with worker(hanging, topology=topology(namespace), grace=0.1):
        run = await client.submit("s", "go")
        await reached.wait()
    assert hanging.active == 0
    async with worker(echo, topology=topology(namespace)):
        seen = [event async for event in run]
    assert seen[-1].text == "1: go"
    assert any(isinstance(event, events.StepRestarted) for event in seen)


async def test_a_tool_that_ignores_its_cancellation_does_not_hold_up_the_hand_over(
    worker, client, namespace, monkeypatch
):
    monkeypatch.setattr(steward, "STOP_PATIENCE", 0.1)
    release, stuck = asyncio.Event(), asyncio.Event()

    @tool(timeout=None)
    async def stubborn() -> str:
        """Does not listen."""
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                stuck.set()
                await release.wait()
        return "done"

    def model(request):
        return call("stubborn") if request.messages[-1].role == "user" else "late"

    hanging = worker(
        Agent("stubborn", ScriptedModel.of(model), tools=[stubborn]), topology=topology(namespace), grace=0.1
    )
    async with hanging:
        run = await client.submit("s", "go")
        await stuck.wait()
        leaving = asyncio.create_task(hanging._steward.release_all())
        async with asyncio.timeout(5):
            await leaving
        release.set()
    async with worker(echo, topology=topology(namespace)):
        seen = [event async for event in run]
    assert [event for event in seen if is_terminal(event)] == [seen[-1]]


@pytest.mark.leaves_consumers
async def test_a_paused_worker_is_taken_over_from_and_does_no_harm_when_it_wakes(
    broker, namespace, worker, tmp_path: Path
):
    effects = tmp_path / "effects"
    async with (
        asyncio.timeout(60),
        Client(broker.url, namespace=namespace) as client,
        child("worker", broker.url, namespace, effects) as first,
    ):
        await first.said("pid")
        assert (await client.run("s", "one").result()).text == f"{first.pid} 1: one"
        stalled = await client.submit("s", "stall")
        await first.said("stalled")
        first.process.send_signal(signal.SIGSTOP)
        async with worker(agent(effects, stalls=False), topology=None, namespace=namespace) as second:
            assert (await stalled.result()).version == 2
            assert len(second.partitions) == 8
            first.process.send_signal(signal.SIGCONT)
            while len(second.partitions) > 5:  # the first is back, and has its share
                await asyncio.sleep(0.01)
            runs = [await client.submit("s", f"more {number}") for number in range(5)]
            assert [(await run.result()).version for run in runs] == [3, 4, 5, 6, 7]
            late = [event async for event in client.attach("s", stalled.run_id)]
            first.process.terminate()
            assert await first.process.wait() == 0
            snapshot = await client.snapshot("s")
    assert [event.seq for event in late] == list(range(1, len(late) + 1))
    check_history(snapshot.messages)
    assert [message.text for message in snapshot.messages if message.role == "user"] == [
        "one",
        "stall",
        *(f"more {number}" for number in range(5)),
    ]


async def test_what_keeps_a_worker_from_joining_is_raised_as_it_is(worker, monkeypatch):
    async def unanswered(*_):
        raise BrokerUnavailable("no answer in time")

    monkeypatch.setattr(Ownership, "claim", unanswered)
    with pytest.raises(BrokerUnavailable, match="no answer in time"):
        async with worker(echo):
            pass
