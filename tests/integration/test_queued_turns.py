"""An operator sees what is queued, whatever it is, and removes one turn; its callers are told."""

import asyncio
import contextlib

import pytest

from atto import Agent, ScriptedModel, tool
from atto.models import Stall, call
from atto.protocol.errors import NoSuchTurn
from atto.protocol.events import is_terminal
from atto.protocol.subjects import Subjects
from atto_client import Client, RunCancelled
from atto_workers import Topology
from atto_workers.queued_turns import QueuedTurns
from tests.raw import raw_client


async def test_a_queued_turn_is_seen_and_removed_and_its_caller_is_told(broker, namespace, jetstream):
    await Topology(namespace).declare(jetstream)
    turns = QueuedTurns(jetstream, Subjects(namespace))
    async with Client(broker.url, namespace=namespace) as client, asyncio.timeout(30):
        run = await client.submit("ann", "first line\nsecond", run_id="r1")
        kept = await client.submit("bob", "x" * 500)
        first, second = [turn async for turn in turns.list()]
        assert (first.session, first.run_id, first.text) == ("ann", "r1", "first line")
        assert (second.run_id, len(second.text)) == (kept.run_id, 80)
        assert [turn async for turn in turns.list("bob")] == [second]
        waiting = asyncio.create_task(run.result())
        assert await turns.remove(first.number) == first
        with pytest.raises(RunCancelled, match="removed by an operator"):
            await waiting
        assert [turn async for turn in turns.list()] == [second]
        with pytest.raises(NoSuchTurn):
            await turns.remove(first.number)


async def test_unreadable_turns_are_seen_and_removed(broker, namespace, jetstream):
    await Topology(namespace).declare(jetstream)
    turns = QueuedTurns(jetstream, Subjects(namespace))
    async with raw_client(broker.url) as raw:
        for token in (b"\xff\xfe", b"a\x0bb", b"*", b"=" * 2000, b"ann"):
            raw.publish(
                namespace.encode() + b".turn." + token, b"\xff\x1b[2J", headers=b"NATS/1.0 404\r\n\r\n"
            )
        assert await raw.flush() == []
    seen = [turn async for turn in turns.list()]
    assert len(seen) == 5
    assert all(turn.text.startswith("unreadable: ") for turn in seen)
    assert [turn.session for turn in seen] == [None] * 4 + ["ann"]
    for turn in seen:
        await turns.remove(turn.number)
    assert [turn async for turn in turns.list()] == []


async def test_a_turn_that_runs_is_stopped_and_not_run_again(worker, client, namespace, jetstream):
    """By its run id; the session goes on with the next."""
    turns = QueuedTurns(jetstream, Subjects(namespace))
    begun = asyncio.Event()
    calls: list[str] = []

    def think(request):
        text = request.messages[-1].text
        calls.append(text)
        return [Stall(reached=begun)] if text == "long" else "done"

    async with asyncio.timeout(60), worker(think) as running:
        run = await client.submit("ann", "long", run_id="r1")
        behind = await client.submit("ann", "short")
        await begun.wait()
        while len(held := [turn async for turn in turns.list() if turn.worker == running.id]) < 2:
            await asyncio.sleep(0.02)
        waiting = asyncio.create_task(run.result())
        assert (await turns.remove("r1")).number == held[0].number
        with pytest.raises(RunCancelled, match="removed by an operator"):
            await waiting
        assert (await behind.result()).text == "done"
        assert sum([is_terminal(event) async for event in client.attach("ann", "r1")]) == 1
    async with asyncio.timeout(60), worker(think):
        assert (await client.run("ann", "short").result()).text == "done"
    assert calls.count("long") == 1


async def test_a_turn_is_removed_from_a_worker_that_gives_no_sign(worker, client, namespace, jetstream):
    """It is silenced: what it says later does not stand, and nobody runs the turn any more."""
    turns = QueuedTurns(jetstream, Subjects(namespace), patience=0.0)
    begun, release = asyncio.Event(), asyncio.Event()

    @tool
    async def stubborn() -> str:
        """Swallows a cancellation."""
        begun.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()
        return "late"

    def think(request):
        return call("stubborn") if request.messages[-1].text == "x" else "done"

    agent = Agent("tester", ScriptedModel.of(think), tools=[stubborn])
    async with asyncio.timeout(60), worker(agent):
        run = await client.submit("ann", "x", run_id="r1")
        await begun.wait()
        await turns.remove("r1")
        with pytest.raises(RunCancelled, match="removed by an operator"):
            await run.result()
        assert [turn async for turn in turns.list()] == []
        release.set()
        assert (await client.run("ann", "next").result()).text == "done"
        assert sum([is_terminal(event) async for event in client.attach("ann", "r1")]) == 1
