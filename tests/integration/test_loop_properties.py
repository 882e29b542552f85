"""What must hold of every run, whatever the model and the tools do."""

import json
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atto import Agent, ToolContext, events, tool
from atto.models import Fail, FinishChunk, ReasoningChunk, ScriptedModel, TextChunk, ToolCallChunk
from atto.protocol.errors import ModelError
from atto.protocol.events import is_terminal
from atto.protocol.ids import new_run_id
from atto.protocol.sessions import apply
from atto_client import Client
from atto_workers import ModelPolicy, RetryPolicy
from tests.integration.histories import check_history

TRIES = 3
MAX_STEPS = 4

pieces = st.lists(st.text(st.characters(codec="utf-8"), max_size=6), max_size=4)
calls = st.lists(
    st.sampled_from(["add", "add_alone", "broken", "unknown", "bad_arguments", "malformed"]), max_size=3
)
failures = st.sampled_from(["transient", "permanent", "cut", "raises"])


@st.composite
def model_calls(draw):
    """One model call: text, reasoning and tool calls, after some tries that break in the middle."""
    return {
        "failures": draw(st.lists(failures, max_size=TRIES)) if draw(st.booleans()) else [],
        "reasoning": draw(pieces),
        "text": draw(pieces),
        "calls": draw(calls),
    }


scripts = st.lists(model_calls(), min_size=1, max_size=MAX_STEPS + 1)


class Script:
    """Plays the script that the user's message is, for many sessions at once."""

    def __init__(self) -> None:
        self.tries: Counter[tuple[str, int]] = Counter()

    def __call__(self, request):
        users = [at for at, message in enumerate(request.messages) if message.role == "user"]
        turn = json.loads(request.messages[users[-1]].text)
        step = sum(message.role == "assistant" for message in request.messages[users[-1] :])
        model_call = turn["script"][step % len(turn["script"])]
        key = (turn["id"], step)
        self.tries[key] += 1
        chunks = [ReasoningChunk(piece) for piece in model_call["reasoning"]]
        chunks += [TextChunk(piece) for piece in model_call["text"]]
        if self.tries[key] <= len(model_call["failures"]):
            match model_call["failures"][self.tries[key] - 1]:
                case "transient":
                    return [*chunks, Fail(ModelError("busy", transient=True))]
                case "permanent":
                    return [*chunks, Fail(ModelError("forbidden"))]
                case "raises":
                    return [*chunks, Fail(ZeroDivisionError("a bug in an adapter"))]
                case "cut":
                    return chunks
        for slot, name in enumerate(model_call["calls"]):
            match name:
                case "bad_arguments":
                    chunks.append(ToolCallChunk(slot, f"id{slot}", "add", '{"amount": "much"}'))
                case "malformed":
                    chunks.append(ToolCallChunk(slot, f"id{slot}", "add", '{"amount": '))
                case _:
                    chunks.append(ToolCallChunk(slot, f"id{slot}", name, '{"amount": 1}'))
        return [*chunks, FinishChunk("stop")]


@tool
def add(amount: int, context: ToolContext) -> str:
    """Adds to the sum."""
    context.state["sum"] = context.state.get("sum", 0) + amount
    return str(context.state["sum"])


@tool(parallel=False)
async def add_alone(amount: int, context: ToolContext) -> str:
    """Adds to the other sum."""
    context.state["other"] = context.state.get("other", 0) + amount
    return str(context.state["other"])


@tool
def broken(amount: int, context: ToolContext) -> str:
    """Changes the state and raises."""
    context.state["broken"] = amount
    raise RuntimeError("broken")


@pytest.fixture
async def running(worker):
    agent = Agent(
        "scripted",
        ScriptedModel.of(Script()),
        tools=[add, add_alone, broken],
        max_steps=MAX_STEPS,
        parallel_tool_calls=True,
    )
    policy = ModelPolicy(retries=RetryPolicy(tries=TRIES, base=0, budget=None), breaker=None)
    async with worker(agent, models=policy) as running:
        yield running


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(scripts=st.lists(scripts, min_size=1, max_size=3))
async def test_invariants_of_runs(running, client: Client, scripts):
    session = new_run_id()
    version, state = 0, {}
    for number, script in enumerate(scripts):
        turn = json.dumps({"id": f"{session}/{number}", "script": script})
        seen = [event async for event in client.run(session, turn)]
        check_events(seen)
        assert isinstance(seen[-1], events.RunCompleted | events.RunFailed)
        version += 1
        assert seen[-1].version == version
        for event in seen:
            if isinstance(event, events.ToolCompleted):
                state = apply(state, event.change)
    snapshot = await client.snapshot(session)
    assert snapshot.version == version
    assert snapshot.state == state
    assert "broken" not in state
    check_history(snapshot.messages, is_finished=False)


def check_events(seen) -> None:
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert [event for event in seen if is_terminal(event)] == [seen[-1]]
    assert isinstance(seen[0], events.RunStarted)
    text: dict[int, list[str]] = {}
    reasoning: dict[int, list[str]] = {}
    pending: dict[str, str] = {}
    last = None
    for event in seen:
        match event:
            case events.TextDelta():
                text.setdefault(event.step, []).append(event.text)
            case events.ReasoningDelta():
                reasoning.setdefault(event.step, []).append(event.text)
            case events.StepRestarted():
                text.pop(event.step, None)
                reasoning.pop(event.step, None)
            case events.ModelCompleted():
                assert not pending, "a model call began before all tools had ended"
                assert event.message.text == "".join(text.get(event.step, []))
                pending = {part.id: part.name for part in event.message.tool_calls}
                last = event
            case events.ToolCompleted():
                assert pending.pop(event.call_id) == event.name
                assert event.is_error == (event.name in {"broken", "unknown"} or not event.change.set)
    if isinstance(seen[-1], events.RunCompleted):
        assert not pending
        assert last is not None
        assert seen[-1].message == last.message
