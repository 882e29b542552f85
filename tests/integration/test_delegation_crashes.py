"""Runs in which one agent asks another, interrupted: by kill -9, by a deadline, by a tool that hangs."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from atto import Agent, ToolContext, events, tool
from atto.models import FinishChunk, ScriptedModel, Stall, TextChunk, UsageChunk, call
from atto.protocol.errors import RunFailed
from atto.protocol.messages import Message, ToolCallPart, Usage
from tests.integration.child import team
from tests.integration.processes import child

PATIENCE = 30


def inner_events(seen):
    return [event for event in seen if event.path]


def result(request):
    return request.messages[-1].content[0].content


def asking(asked, **options):
    """Asks once, and answers with what it was told; each of its two model calls costs (10, 5)."""

    def coordinate(request):
        said = call(asked.name, input="go") if request.messages[-1].role == "user" else result(request)
        first = TextChunk(said) if isinstance(said, str) else said
        return [first, UsageChunk(Usage(10, 5)), FinishChunk("stop")]

    return Agent("coordinator", ScriptedModel.of(coordinate), tools=[asked.as_tool(**options)])


@pytest.mark.leaves_consumers
async def test_kill_9_in_the_middle_of_an_asked_agent(broker, namespace, worker, client, tmp_path: Path):
    effects, seen = tmp_path / "effects", []
    half_answered = asyncio.Event()

    async def listen(run):
        async for event in run:
            seen.append(event)
            if any(isinstance(said, events.TextDelta) for said in inner_events([event])):
                half_answered.set()

    async with asyncio.timeout(PATIENCE):
        async with child("team", broker.url, namespace, effects) as first:
            await first.said("pid")
            run = await client.submit("s", "stall")
            listening = asyncio.create_task(listen(run))
            await half_answered.wait()
            await first.kill()
        successor = team(effects, stalls=False)
        async with worker(successor, topology=None, namespace=namespace):
            answer = await run.result()
            await listening
            snapshot = await client.snapshot("s")
        late = [event async for event in client.attach("s", run.run_id)]

    assert late == seen
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    # Both agents' first model calls and the tool's effect came from the journal.
    assert len(effects.read_text().splitlines()) == 1
    assert len(successor.model.requests) == 1
    assert len(successor.tool("noting").agent.model.requests) == 1
    # The step in which the coordinator asked stands.
    assert not any(isinstance(event, events.StepRestarted) and event.step == 1 for event in seen)
    inner = inner_events(seen)
    restart = next(at for at, event in enumerate(inner) if isinstance(event, events.StepRestarted))
    assert inner[restart].step == 2
    standing = [event.text for event in inner[restart:] if isinstance(event, events.TextDelta)]
    assert "".join(standing) == answer.text
    assert answer.text.endswith(" 1: stall")
    assert snapshot.state == {"notes": 1}


async def test_an_asked_agents_tool_that_must_not_run_twice_does_not(worker, client):
    ran, reached = [], asyncio.Event()

    @tool(at_most_once=True)
    async def pay() -> str:
        """Pays, and never comes back."""
        ran.append("paid")
        reached.set()
        await asyncio.Event().wait()
        return "paid"

    def answer(request):
        return call("pay") if request.messages[-1].role == "user" else result(request)

    agent = asking(Agent("cashier", ScriptedModel.of(answer), tools=[pay]))
    async with asyncio.timeout(PATIENCE):
        async with worker(agent, grace=0.0):
            run = await client.submit("s", "pay")
            await reached.wait()
        async with worker(agent):
            answered = await run.result()
    assert ran == ["paid"]
    assert "outcome of this call is unknown" in answered.text


async def test_a_deadline_stops_an_asked_agent(worker, client):
    model = ScriptedModel.of(lambda _: [TextChunk("half"), Stall()])
    async with worker(asking(Agent("slow", model))):
        run = await client.submit("s", "go", expires=datetime.now(UTC) + timedelta(seconds=0.4))
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(RunFailed, match="deadline"):
                await run.result()
    assert model.active == 0


def paid_call():
    return [call("nothing"), UsageChunk(Usage(3, 2)), FinishChunk("tool_calls")]


async def test_an_agent_that_takes_too_long_is_an_error_and_what_it_cost_counts(worker, client):
    def answer(request):
        return paid_call() if request.messages[-1].role == "user" else [Stall()]

    model = ScriptedModel.of(answer)
    async with worker(asking(Agent("slow", model), timeout=0.4)), asyncio.timeout(PATIENCE):
        answered = await client.run("s", "go").result()
    assert "did not answer within 0.4 s" in answered.text
    assert answered.usage == Usage(23, 12)
    assert model.active == 0


@pytest.mark.parametrize("interrupted", ["not", "while it is asked", "after that"])
async def test_an_agent_that_fails_costs_what_it_cost_whatever_was_interrupted(worker, client, interrupted):
    """Two levels: the agent that fails is asked by one that is asked itself."""
    reached, stalling = asyncio.Event(), interrupted

    def ask_for_more(request):
        if request.messages[-1].role == "tool" and stalling == "while it is asked":
            return [Stall(reached=reached)]
        return paid_call()

    endless = Agent("endless", ScriptedModel.of(ask_for_more), max_steps=2)

    def coordinate(request):
        if request.messages[-1].role == "user":
            return call("coordinator", input="go")
        return [Stall(reached=reached)] if stalling == "after that" else result(request)

    top = Agent("top", ScriptedModel.of(coordinate), tools=[asking(endless).as_tool()])
    async with worker(top):
        pass  # the namespace is declared
    run = await client.submit("s", "go")
    async with asyncio.timeout(PATIENCE):
        if interrupted != "not":
            async with worker(top, grace=0.0):
                await reached.wait()
            stalling = "not"
        async with worker(top):
            answered = await run.result()
    assert "max_steps" in answered.text
    assert answered.usage == Usage(2 * 10 + 2 * 3, 2 * 5 + 2 * 2)


async def test_calls_of_one_id_by_different_agents_have_keys_of_their_own(worker, client):
    """Some providers number the calls of each message anew."""
    keys = []

    @tool
    def note(context: ToolContext) -> str:
        """Leaves its key."""
        keys.append(context.idempotency_key)
        return "noted"

    def numbered(name, calls):
        def answer(request):
            if request.messages[-1].role == "user":
                return Message("assistant", tuple(ToolCallPart(f"c{n}", *a) for n, a in enumerate(calls)))
            return "done"

        return lambda *tools: Agent(name, ScriptedModel.of(answer), tools=tools)

    note_call, go = ("note", {}), {"input": "go"}
    one = numbered("one", [note_call])(note)
    middle = numbered("middle", [note_call, ("one", go)])(note, one.as_tool())
    top = numbered("top", [note_call, ("middle", go), ("middle", go)])(note, middle.as_tool())
    async with worker(top), asyncio.timeout(PATIENCE):
        for session in ("s", "another"):
            await (await client.submit(session, "go", run_id="the same")).result()
    assert len(keys) == len(set(keys)) == 2 * 5


async def test_the_models_of_asked_agents_are_closed_with_the_worker(worker):
    class Closing(ScriptedModel):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    models = [Closing(), Closing()]
    asked = Agent("asked", models[0], fallbacks=models[1:])
    async with worker(asking(asked)):
        pass
    assert [model.closed for model in models] == [1, 1]
