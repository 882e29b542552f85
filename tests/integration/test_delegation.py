"""Agents that ask other agents: one run, one journal, and each one's words under its own name."""

import asyncio

import pytest

from atto import Agent, ToolContext, events, tool
from atto.models import FinishChunk, ScriptedModel, Stall, TextChunk, UsageChunk, call
from atto.protocol.errors import ModelError
from atto.protocol.events import is_terminal
from atto.protocol.messages import Message, Usage

PATIENCE = 20


def said(request):
    return request.messages[-1].text


def result(request):
    return request.messages[-1].content[0].content


def specialist(name="weather", *, tools=(), model=None):
    def answer(request):
        where = TextChunk(f"in {said(request)}")
        return [TextChunk("sunny "), where, UsageChunk(Usage(3, 2)), FinishChunk("stop")]

    return Agent(name, model or ScriptedModel.of(answer), tools=tools, description="Knows the weather.")


def coordinator(*asked, calls=None):
    def answer(request):
        if request.messages[-1].role == "user":
            return calls or call(asked[0].name, input=said(request))
        found = " and ".join(part.content for part in request.messages[-1].content)
        return [TextChunk("it is "), TextChunk(found), UsageChunk(Usage(10, 5)), FinishChunk("stop")]

    return Agent("coordinator", ScriptedModel.of(answer), tools=[agent.as_tool() for agent in asked])


async def heard(run):
    async with asyncio.timeout(PATIENCE):
        return [event async for event in run]


async def test_an_agent_asks_another_and_its_words_come_under_its_name(worker, client):
    async with worker(coordinator(specialist())):
        seen = await heard(client.run("s", "Oslo"))
    inner = [event for event in seen if event.path]
    [completed] = [event for event in seen if isinstance(event, events.ToolCompleted) and not event.path]
    assert {event.path for event in inner} == {f"1:{completed.call_id}"}
    assert isinstance(inner[0], events.AgentStarted)
    assert (inner[0].agent, inner[0].speaks) == ("weather", False)
    assert isinstance(inner[-1], events.AgentCompleted)
    assert (inner[-1].message.text, inner[-1].usage) == ("sunny in Oslo", Usage(3, 2))
    assert "".join(event.text for event in inner if isinstance(event, events.TextDelta)) == "sunny in Oslo"
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert (completed.name, completed.content, completed.is_error) == ("weather", "sunny in Oslo", False)
    assert seen[-1].text == "it is sunny in Oslo"
    own = [event.text for event in seen if isinstance(event, events.TextDelta) and not event.path]
    assert "".join(own) == seen[-1].text
    assert seen[-1].usage == Usage(13, 7)


async def test_what_the_model_is_told_of_an_agent(worker, client):
    asking = coordinator(specialist())
    async with worker(asking):
        await client.run("s", "Oslo").result()
    [spec] = asking.model.requests[0].tools
    assert (spec.name, spec.description) == ("weather", "Knows the weather.")
    assert spec.parameters["required"] == ["input"]


async def test_a_specialist_has_its_own_tools_and_shares_the_state(worker, client):
    keys = []

    @tool
    def look_up(city: str, context: ToolContext) -> str:
        """Looks it up."""
        keys.append(context.idempotency_key)
        context.state["looked_up"] = [*context.state.get("looked_up", []), city]
        return f"{city}: rain"

    def answer(request):
        if request.messages[-1].role == "user":
            return call("look_up", city=said(request))
        return result(request)

    weather = specialist(tools=[look_up], model=ScriptedModel.of(answer))
    async with worker(coordinator(weather)):
        first = await heard(client.run("s", "Oslo"))
        second = await heard(client.run("s", "Rome"))
        snapshot = await client.snapshot("s")
    assert second[-1].text == "it is Rome: rain"
    assert snapshot.state == {"looked_up": ["Oslo", "Rome"]}
    assert len(set(keys)) == 2
    kinds = [type(event) for event in first if event.path]
    assert kinds.count(events.ToolStarted) == kinds.count(events.ToolCompleted) == 1


async def test_specialists_work_side_by_side_and_agents_ask_agents_that_ask_agents(worker, client):
    meeting = asyncio.Barrier(2)

    @tool
    async def meet(context: ToolContext) -> str:
        """Returns once two calls are under way."""
        async with asyncio.timeout(PATIENCE):
            await meeting.wait()
        return context.idempotency_key

    def answer(request):
        return call("meet") if request.messages[-1].role == "user" else result(request)

    def expert(name):
        return Agent(name, ScriptedModel.of(answer), tools=[meet])

    def manager(name, below):
        def manage(request):
            return call(below.name, input="go") if request.messages[-1].role == "user" else result(request)

        return Agent(name, ScriptedModel.of(manage), tools=[below.as_tool()])

    managers = [manager("first", expert("a")), manager("second", expert("b"))]
    calls = Message("assistant", tuple(call(manager.name, input="go") for manager in managers))
    async with worker(coordinator(*managers, calls=calls)):
        seen = await heard(client.run("s", "go"))
    names = {event.path: event.agent for event in seen if isinstance(event, events.AgentStarted)}
    nested = {(names[path.rpartition("/")[0]], name) for path, name in names.items() if "/" in path}
    assert nested == {("first", "a"), ("second", "b")}
    keys = seen[-1].text.removeprefix("it is ").split(" and ")
    assert len(set(keys)) == 2
    assert seen[-1].version == 1


async def test_an_agent_that_fails_is_told_to_the_one_that_asks(worker, client):
    failing = Agent("weather", ScriptedModel.of(lambda _: ModelError("no credit")))
    endless = Agent("endless", ScriptedModel.of(lambda _: call("nothing")), max_steps=2)
    for asked, words in ((failing, "no credit"), (endless, "max_steps")):
        async with worker(coordinator(asked)):
            seen = await heard(client.run(asked.name, "Oslo"))
        [completed] = [event for event in seen if isinstance(event, events.ToolCompleted) and not event.path]
        assert completed.is_error
        assert words in completed.content
        assert isinstance(seen[-1], events.RunCompleted)


async def test_a_cancelled_run_stops_the_agents_that_it_asked(worker, client):
    reached = asyncio.Event()
    model = ScriptedModel.of(lambda _: [TextChunk("sunny"), Stall(None, reached), FinishChunk("stop")])
    async with worker(coordinator(specialist(model=model))):
        run = await client.submit("s", "Oslo")
        await reached.wait()
        await run.cancel("enough")
        seen = await heard(run)
    assert isinstance(seen[-1], events.RunCancelled)
    assert model.active == 0


async def test_a_model_that_breaks_off_voids_the_words_of_its_own_agent_only(worker, client):
    answers = iter([[TextChunk("rai")], [TextChunk("sunny"), FinishChunk("stop")]])  # the first one is cut
    async with worker(coordinator(specialist(model=ScriptedModel.of(lambda _: next(answers))))):
        seen = await heard(client.run("s", "Oslo"))
    restarted = [event for event in seen if isinstance(event, events.StepRestarted)]
    assert restarted
    assert all(event.path for event in restarted)
    assert seen[-1].text == "it is sunny"


@pytest.mark.parametrize("stalls_in", ["second step", "answer of the coordinator"])
async def test_what_an_asked_agent_completed_is_not_done_again_elsewhere(worker, client, stalls_in):
    effects, reached = [], asyncio.Event()
    stalling = True

    @tool
    def look_up(context: ToolContext) -> str:
        """Has an effect."""
        effects.append(context.idempotency_key)
        context.state["n"] = context.state.get("n", 0) + 1
        return "rain"

    def answer(request):
        if request.messages[-1].role == "user":
            return call("look_up")
        if stalling and stalls_in == "second step":
            return [TextChunk("half"), Stall(None, reached), FinishChunk("stop")]
        return result(request)

    def coordinate(request):
        if request.messages[-1].role == "user":
            return call("weather", input="Oslo")
        if stalling and stalls_in == "answer of the coordinator":
            return [TextChunk("half"), Stall(None, reached), FinishChunk("stop")]
        return result(request)

    weather = specialist(tools=[look_up], model=ScriptedModel.of(answer))
    asking = Agent("coordinator", ScriptedModel.of(coordinate), tools=[weather.as_tool()])
    async with worker(asking, grace=0.0):
        run = await client.submit("s", "Oslo")
        async with asyncio.timeout(PATIENCE):
            await reached.wait()
    stalling = False
    async with worker(asking):
        seen = await heard(run)
        snapshot = await client.snapshot("s")
    assert [event for event in seen if is_terminal(event)] == [seen[-1]]
    assert seen[-1].text == "rain"
    assert len(effects) == 1
    assert snapshot.state == {"n": 1}
    assert len(weather.model.requests) == (3 if stalls_in == "second step" else 2)
