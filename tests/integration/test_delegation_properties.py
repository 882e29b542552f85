"""What must hold of every run in which agents ask agents, whatever their models and tools do."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atto import Agent, events
from atto.models import FinishChunk, ScriptedModel, ToolCallChunk, UsageChunk
from atto.protocol.events import is_terminal
from atto.protocol.ids import new_run_id
from atto.protocol.messages import Usage
from atto.protocol.paths import of_call
from atto.protocol.sessions import apply
from atto_client import Client
from atto_workers import ModelPolicy, RetryPolicy
from tests.integration.histories import check_history
from tests.integration.test_loop_properties import MAX_STEPS, TRIES, Script, add, broken, failures, pieces

ASKED = ("ask", "ask_alone")


mended = st.lists(st.sampled_from(["transient", "cut"]), max_size=TRIES - 1)
"""Failures after which a model call is tried again, with success."""


def model_calls(calls):
    """One model call, which may break in the middle."""
    some_failures = st.lists(failures, min_size=1, max_size=TRIES)
    return st.fixed_dictionaries(
        {
            "failures": st.integers(0, 7).flatmap(lambda rare: mended if rare else some_failures),
            "reasoning": pieces,
            "text": pieces,
            "calls": calls,
        }
    )


def scripts(*names, least=0):
    """Of one agent, which mostly comes to an end: a run that fails says little of what runs come to."""
    calling = st.lists(
        model_calls(st.lists(st.sampled_from(names), min_size=least, max_size=3)), min_size=1, max_size=2
    )
    answers = st.integers(0, 7).flatmap(
        lambda rare: st.lists(model_calls(st.just([])), min_size=min(rare, 1), max_size=1)
    )
    return st.tuples(calling, answers).map(lambda parts: [*parts[0], *parts[1]])


turns = st.fixed_dictionaries(
    {
        "script": scripts("ask", "ask_alone", "add", "unknown", least=1),
        "asked": scripts("ask", "add", "broken"),
        "deepest": scripts("add", "bad_arguments"),
    }
)


class TeamScript(Script):
    """Every agent plays its part of the turn that it is asked; each model call costs (2, 1)."""

    def __call__(self, request):
        users = [message for message in request.messages if message.role == "user"]
        turn = json.loads(users[-1].text)
        told = [self._told(turn, len(request.messages), chunk) for chunk in super().__call__(request)]
        if told and isinstance(told[-1], FinishChunk):
            told.insert(-1, UsageChunk(Usage(2, 1)))
        return told

    def _told(self, turn, at, chunk):
        """What an agent is asked is a turn of its own, of those below it."""
        if not (isinstance(chunk, ToolCallChunk) and chunk.name in ASKED):
            return chunk
        below = {
            "id": f"{turn['id']}/{at}.{chunk.slot}",
            "script": turn.get("asked") or turn["deepest"],
            "deepest": turn["deepest"],
        }
        return ToolCallChunk(chunk.slot, chunk.id, chunk.name, json.dumps({"input": json.dumps(below)}))


@pytest.fixture
async def running(worker):
    model = ScriptedModel.of(TeamScript())
    deepest = Agent("deepest", model, tools=[add], max_steps=MAX_STEPS)
    asked = Agent("asked", model, tools=[add, broken, deepest.as_tool(name="ask")], max_steps=MAX_STEPS)
    tools = [add, asked.as_tool(name="ask"), asked.as_tool(name="ask_alone", parallel=False)]
    policy = ModelPolicy(retries=RetryPolicy(tries=TRIES, base=0, budget=None), breaker=None)
    async with worker(Agent("team", model, tools=tools, max_steps=MAX_STEPS), models=policy) as running:
        yield running


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(turn=turns)
async def test_invariants_of_runs_in_which_agents_ask_agents(running, client: Client, turn):
    session = new_run_id()
    seen = [event async for event in client.run(session, json.dumps({"id": session, **turn}))]
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert [event for event in seen if is_terminal(event)] == [seen[-1]]
    costs, state = check_agent(seen)
    snapshot = await client.snapshot(session)
    if isinstance(seen[-1], events.RunCompleted):
        assert seen[-1].message.text == spoken(event for event in seen if not event.path)
        assert seen[-1].usage == costs
        assert snapshot.state == state
        check_history(snapshot.messages)
    else:
        assert isinstance(seen[-1], events.RunFailed)
        [record] = snapshot.runs
        assert (record.ended, record.version) == ("failed", seen[-1].version)


def check_agent(said, path=""):
    """Checks what the agent at `path` said, and those that it asked. Returns what all of it cost, and the
    state.
    """
    costs, state = Usage(), {}
    said_by: dict[str, list] = {}
    for event in said:
        said_by.setdefault(event.path, []).append(event)
    own = said_by.get(path, [])
    spoken(own)
    ended = {event.path for event in said if isinstance(event, events.AgentCompleted)}
    for event in own:
        match event:
            case events.ModelCompleted():
                costs += event.usage
            case events.ToolCompleted():
                state = apply(state, event.change)
                below = of_call(path, event.step, event.call_id)
                if below in said_by and not event.is_error:
                    assert event.content == spoken(said_by[below])
                    assert below in ended
            case _:
                pass
    for below in said_by:
        if below and below.rpartition("/")[0] == path:
            costs += check_agent(said, below)[0]
    return costs, state


def spoken(said) -> str:
    """The text of the last step. Of every step that ended the deltas that stand are its message's text."""
    text: dict[int, str] = {}
    last = ""
    for event in said:
        match event:
            case events.TextDelta():
                text[event.step] = text.get(event.step, "") + event.text
            case events.StepRestarted():
                text = {step: words for step, words in text.items() if step < event.step}
            case events.ModelCompleted():
                last = text.get(event.step, "")
                assert event.message.text == last
            case _:
                pass
    return last
