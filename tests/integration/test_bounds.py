"""What is too much, or too little: one clear terminal event, and the session goes on."""

import asyncio

import pytest

from atto import Agent, ToolContext, events, tool
from atto.models import FinishChunk, ScriptedModel, TextChunk, call
from atto.models.assemble import MAX_CALLS
from atto.protocol.errors import StoreUnavailable
from atto.protocol.events import is_terminal
from atto.protocol.messages import Message, ToolCallPart
from tests.integration.histories import check_history

ODD = bytes(range(1, 65)).decode() + "é🎈" * 9 + "é" * 2 + "\u2028\x7f.*"  # 128 bytes


@tool
def dump(size: int) -> str:
    """Gives as much as it is asked for."""
    return "x" * size


def calls(count: int, size: int) -> Message:
    return Message(
        "assistant", tuple(ToolCallPart(f"c{number}", "dump", {"size": size}) for number in range(count))
    )


def said(*chunks):
    return [*chunks, FinishChunk("stop")]


async def ends(worker, client, first, *, session="s", is_told=True, **options):
    """The terminal event of a run whose first model call gives `first`; the next turn is answered.

    `is_told`: whether the session's messages fit into answers to those who ask for its snapshot.
    """

    def model(request):
        last = request.messages[-1]
        if last.role == "user" and last.text == "go":
            return first
        return "done"

    agent = Agent("bounded", ScriptedModel.of(model), tools=[dump], **options)
    async with asyncio.timeout(60), worker(agent):
        seen = [event async for event in client.run(session, "go")]
        answer = await client.run(session, "on").result()
        if is_told:
            check_history((await client.snapshot(session)).messages)
        else:
            with pytest.raises(StoreUnavailable, match="max_payload"):
                await client.snapshot(session)
    assert answer.text == "done"
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert [event for event in seen if is_terminal(event)] == [seen[-1]]
    return seen[-1], [event for event in seen if isinstance(event, events.ToolCompleted)]


@pytest.mark.parametrize(
    "first",
    [
        said(TextChunk("x" * 2_000_000)),
        said(*[TextChunk("x" * 20_000)] * 100),
        said(TextChunk("\0" * 300_000)),  # six times as long in JSON
        said(TextChunk("x" * 600_000), call("dump", size="x" * 500_000)),
    ],
    ids=["one chunk", "many chunks", "escapes", "text and arguments"],
)
async def test_a_message_of_the_model_that_no_event_can_hold_fails_the_run(worker, client, first):
    terminal, _ = await ends(worker, client, first)
    assert isinstance(terminal, events.RunFailed)
    assert terminal.code == "model_error"
    assert "max_payload" in terminal.message


async def test_the_longest_message_that_an_event_can_hold_is_committed(worker, client):
    terminal, _ = await ends(worker, client, said(TextChunk("x" * ((1 << 20) - 4096 - 400))))
    assert isinstance(terminal, events.RunCompleted)


async def test_a_tool_result_that_no_event_can_hold_is_an_error_that_the_model_reads(worker, client):
    terminal, [completed] = await ends(worker, client, calls(1, 2_000_000))
    assert isinstance(terminal, events.RunCompleted)
    assert completed.is_error
    assert "ask for less" in completed.content


@pytest.mark.parametrize("size", [10, 20_000])
async def test_as_many_tool_calls_as_one_step_may_have(worker, client, size):
    """With 20 kB each their results are more than twice what a message of the broker may have."""
    terminal, completed = await ends(worker, client, calls(MAX_CALLS, size), is_told=size < 1000)
    assert isinstance(terminal, events.RunCompleted)
    assert len(completed) == MAX_CALLS
    assert not any(event.is_error for event in completed)


async def test_a_state_and_a_message_that_fill_a_page_each_are_told(worker, client):
    def model(request):
        return call("keep") if request.messages[-1].role == "user" else "done"

    @tool
    def keep(context: ToolContext) -> str:
        """Keeps something."""
        context.state["kept"] = "x" * 700_000
        return "kept"

    async with asyncio.timeout(60), worker(Agent("keeping", ScriptedModel.of(model), tools=[keep])):
        await client.run("s", "y" * 700_000).result()
        snapshot = await client.snapshot("s")
    assert len(snapshot.state["kept"]) == len(snapshot.messages[0].text) == 700_000
    check_history(snapshot.messages)


async def test_a_session_id_of_128_odd_bytes(worker, client):
    assert len(ODD.encode()) == 128
    terminal, _ = await ends(worker, client, calls(1, 10), session=ODD)
    assert isinstance(terminal, events.RunCompleted)


async def test_an_agent_of_one_step_that_asks_for_a_tool(worker, client):
    terminal, _ = await ends(worker, client, calls(1, 10), max_steps=1)
    assert isinstance(terminal, events.RunFailed)
    assert terminal.code == "max_steps"


@pytest.mark.parametrize("first", [[], [FinishChunk("stop")]], ids=["no end", "an end"])
async def test_a_model_that_says_nothing(worker, client, first):
    terminal, _ = await ends(worker, client, first)
    if first:
        assert isinstance(terminal, events.RunCompleted)
        assert terminal.text == ""
    else:
        assert isinstance(terminal, events.RunFailed)
        assert terminal.code == "model_error"
