"""A turn in, a streamed answer out, through a real broker."""

import asyncio
import json

import pytest
from nats.aio.client import Client as Connection

from atto import Agent, ToolContext, tool
from atto.models import FinishChunk, ScriptedModel, Stall, TextChunk, call
from atto.protocol.events import (
    ModelCompleted,
    RunCompleted,
    RunStarted,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from atto.protocol.ids import decode_run
from atto.protocol.messages import Message
from atto_client import SessionBacklogFull
from tests.integration.histories import check_history


def echo(request):
    """Answers with what the user said, and how many user messages there were."""
    users = [message.text for message in request.messages if message.role == "user"]
    return f"{len(users)}: {users[-1]}"


async def test_a_turn_is_answered_with_numbered_events_that_end_in_one_terminal(worker, client):
    async with worker(echo):
        events = [event async for event in client.run("user-123", "hello there")]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunCompleted)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == "1: hello there"
    assert events[-1].text == "1: hello there"
    assert events[-1].version == 1


async def test_a_tool_is_called_and_its_state_change_is_committed(worker, client):
    @tool
    async def get_weather(city: str, context: ToolContext) -> str:
        """The weather of a city."""
        context.state["asked"] = [*context.state.get("asked", []), city]
        return f"sunny in {city}"

    def weather(request):
        last = request.messages[-1]
        return call("get_weather", city="Oslo") if last.role == "user" else last.content[0].content

    async with worker(Agent("weather", ScriptedModel.of(weather), tools=[get_weather])):
        events = [event async for event in client.run("ann", "weather?")]
        await (await client.submit("ann", "and now?")).result()
        snapshot = await client.snapshot("ann")
    kinds = [type(event) for event in events if not isinstance(event, TextDelta)]
    assert kinds == [RunStarted, ModelCompleted, ToolStarted, ToolCompleted, ModelCompleted, RunCompleted]
    assert snapshot.state == {"asked": ["Oslo", "Oslo"]}
    assert snapshot.version == 2
    assert [message.role for message in snapshot.messages] == ["user", "assistant", "tool", "assistant"] * 2
    check_history(snapshot.messages)


async def test_two_turns_published_at_once_run_in_order(worker, client):
    async with worker(echo):
        first, second = await asyncio.gather(client.submit("s", "one"), client.submit("s", "two"))
        texts = [(await run.result()).text for run in (first, second)]
        versions = [(await run.result()).version for run in (first, second)]
        snapshot = await client.snapshot("s")
    assert sorted(versions) == [1, 2]
    asked = [message.text for message in snapshot.messages if message.role == "user"]
    answered = [message.text for message in snapshot.messages if message.role == "assistant"]
    assert sorted(asked) == ["one", "two"]
    assert answered == [f"{number}: {text}" for number, text in enumerate(asked, 1)]
    assert sorted(texts) == sorted(answered)


async def test_turns_of_a_session_never_overlap_and_keep_their_order(worker, client):
    running: list[str] = []

    @tool
    async def step() -> str:
        """A step that would notice company."""
        running.append("x")
        for _ in range(20):
            await asyncio.sleep(0)
            assert len(running) == 1
        running.pop()
        return "done"

    def model(request):
        return call("step") if request.messages[-1].role == "user" else echo(request)

    async with worker(Agent("steps", ScriptedModel.of(model), tools=[step])):
        runs = [await client.submit("s", f"turn {number}") for number in range(20)]
        texts = [(await run.result()).text for run in runs]
    assert texts == [f"{number + 1}: turn {number}" for number in range(20)]


async def test_two_hundred_sessions_run_side_by_side(worker, client):
    everybody = asyncio.Barrier(200)

    @tool
    async def meet() -> str:
        """Returns when all two hundred are here."""
        await everybody.wait()
        return "met"

    def model(request):
        return call("meet") if request.messages[-1].role == "user" else "done"

    async with worker(Agent("meeting", ScriptedModel.of(model), tools=[meet]), concurrency=200):
        runs = await asyncio.gather(*(client.submit(f"session-{number}", "go") for number in range(200)))
        results = await asyncio.gather(*(run.result() for run in runs))
    assert [result.text for result in results] == ["done"] * 200


async def test_the_33rd_unfinished_turn_is_refused_while_another_session_goes_on(worker, client):
    gate = asyncio.Event()

    def model(request):
        if request.messages[-1].text == "wait":
            return [Stall(gate), TextChunk("late"), FinishChunk("stop")]
        return "at once"

    async with worker(model):
        runs = [await client.submit("full", "wait") for _ in range(32)]
        with pytest.raises(SessionBacklogFull, match="'full'"):
            await client.submit("full", "one too many")
        with pytest.raises(SessionBacklogFull):
            async for _ in client.run("full", "one too many"):
                pass
        assert (await (await client.submit("other", "hi")).result()).text == "at once"
        gate.set()
        assert {(await run.result()).text for run in runs} == {"late"}
        assert (await (await client.submit("full", "hi")).result()).version == 33


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        (None, {"input": "hi"}, None),
        ({"Nats-Msg-Id": "names nothing"}, {"input": "hi"}, None),
        ({"Nats-Msg-Id": "names nothing"}, {"input": "hi", "run_id": "mine"}, "mine"),
    ],
)
async def test_a_plain_nats_message_is_answered_on_its_event_subject(
    worker, connection: Connection, namespace: str, headers, body, expected
):
    async with worker(echo):
        heard = await connection.subscribe(f"{namespace}.event.user-123.*")
        await connection.flush()
        ack = await connection.jetstream().publish(
            f"{namespace}.turn.user-123", json.dumps(body).encode(), headers=headers
        )
        events, subjects = [], set()
        while not events or events[-1]["type"] != "run_completed":
            message = await heard.next_msg(timeout=5)
            subjects.add(message.subject)
            batch = json.loads(message.data)
            assert batch["v"] == 2
            events += batch["events"]
        await heard.unsubscribe()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert "".join(event["text"] for event in events if event["type"] == "text_delta") == "1: hi"
    assert len(subjects) == 1
    run_id = decode_run(subjects.pop().rpartition(".")[2])
    if expected is None:
        assert run_id.endswith(f"{ack.seq:012x}")
    else:
        assert run_id == expected


async def test_a_repeated_run_id_attaches_to_the_first_run(worker, client):
    model = ScriptedModel.of(echo)
    async with worker(model):
        first = await (await client.submit("s", "hi", run_id="order 17")).result()
        again = await (await client.submit("s", "hi", run_id="order 17")).result()
        streamed = [event async for event in client.run("s", "hi", run_id="order 17")]
        snapshot = await client.snapshot("s")
    assert first == again == streamed[-1]
    assert snapshot.version == 1
    assert len(model.requests) == 1


async def test_a_snapshot_larger_than_a_message_comes_whole(worker, client):
    async with worker(lambda request: request.messages[-1].text.upper()):
        for letter in "abcde":
            await (await client.submit("big", letter * 300_000)).result()
        snapshot = await client.snapshot("big")
    assert [message.text[:1] for message in snapshot.messages] == list("aAbBcCdDeE")
    assert all(len(message.text) == 300_000 for message in snapshot.messages)


async def test_an_unknown_session_has_an_empty_snapshot(worker, client):
    async with worker(echo):
        snapshot = await client.snapshot("nobody")
    assert snapshot.version == 0
    assert snapshot.messages == ()


async def test_a_message_keeps_its_parts(worker, client):
    image = {"type": "image", "url": "https://example.com/cat.png"}
    async with worker(lambda request: f"{len(request.messages[-1].content)} parts"):
        from atto import ImagePart, TextPart

        parts = [TextPart("what is this?"), ImagePart(url=image["url"])]
        result = await (await client.submit("s", parts)).result()
        snapshot = await client.snapshot("s")
    assert result.text == "2 parts"
    assert snapshot.messages[0] == Message("user", tuple(parts))


async def test_a_tool_reads_the_labels_and_the_headers_that_its_turn_came_with(worker, client):
    @tool
    def trace(context: ToolContext) -> str:
        """Tells where the turn comes from."""
        return f"{context.metadata['channel']} {context.headers['traceparent']}"

    def asked(request):
        return "inner" if request.messages[-1].role == "tool" else call("trace")

    inner = Agent("inner", ScriptedModel.of(asked), tools=[trace])

    def model(request):
        if request.messages[-1].role == "user":
            return Message("assistant", (call("trace"), call("inner", input="trace")))
        return " ".join(part.content for part in request.messages[-1].content)

    agent = Agent("outer", ScriptedModel.of(model), tools=[trace, inner.as_tool()])
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with asyncio.timeout(20), worker(agent):
        run = client.run("s", "hi", metadata={"channel": "web"}, headers={"traceparent": parent})
        seen = [event async for event in run]
    assert seen[-1].text == f"web {parent} inner"
    told = [event for event in seen if event.path]
    assert f"web {parent}" in [event.content for event in told if isinstance(event, ToolCompleted)]
