"""The documented shapes of the Responses API's stream, and what servers that speak like it make of them."""

import asyncio
import json

import pytest

from atto.models import ModelRequest, OpenAIResponses, ReasoningChunk, TextChunk
from atto.protocol.errors import InvalidAgent, ModelError
from atto.protocol.messages import Message, Origin, ReasoningPart, TextPart, ToolCallPart, Usage

from .chat_server import CUT, sse
from .conftest import KEY
from .responses_payloads import (
    USAGE,
    added,
    answer,
    ask_for,
    completed,
    created,
    delta,
    done,
    failed,
    function_call,
    incomplete,
    message,
    reasoning,
    response,
    say,
    think,
)


@pytest.fixture
async def model(server):
    responses = OpenAIResponses("gpt-5", api_key=KEY, base_url=server.url)
    yield responses
    await responses.aclose()


async def failure(ask, model):
    with pytest.raises(ModelError) as caught:
        await ask(model)
    return caught.value


async def test_what_is_sent(server, model, ask):
    server.reply(answer("ok"))
    await ask(model)
    (request,) = server.requests
    assert request.path == "/v1/responses"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body == {
        "model": "gpt-5",
        "input": [{"role": "user", "content": "hi"}],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "stream": True,
    }


async def test_each_item_becomes_a_part_with_its_own_json(server, model, ask):
    server.reply(
        sse(created(), *think(0, "let me ", "see"), *say(1, "It is ", "sunny."), *ask_for(2, "a", "f", "{}")),
        sse(completed()),
    )
    assembled = await ask(model)
    assert assembled.message.content == (
        ReasoningPart("let me see", native=reasoning("let me see")),
        TextPart("It is sunny.", native=message("It is sunny.")),
        ToolCallPart("a", "f", {}, native=function_call("a", "f")),
    )
    assert assembled.usage == Usage(9, 12, 4, 2, 5)
    assert assembled.finish == "tool_calls"


async def test_the_parts_of_a_summary_and_plain_reasoning(server, model, request_hi):
    server.reply(
        sse(
            *think(0, "one")[:-1],
            {"type": "response.reasoning_summary_part.added", "output_index": 0, "summary_index": 1},
            delta("reasoning_summary_text", 0, "two", summary_index=1),
            done(0, reasoning("one", "two")),
            added(1, reasoning()),
            delta("reasoning_text", 1, "plain"),
            done(1, reasoning()),
            completed(),
        )
    )
    chunks = [chunk async for chunk in model.stream(request_hi)]
    thought = [chunk.text for chunk in chunks if isinstance(chunk, ReasoningChunk) and chunk.text]
    assert thought == ["one", "\n\n", "two", "plain"]


async def test_what_was_not_streamed_is_taken_from_the_item(server, model, ask):
    items = [reasoning("one", "two"), message("all at once"), function_call("a", "f", '{"x":1}')]
    server.reply(sse(created(), *(done(at, item) for at, item in enumerate(items)), completed()))
    assert (await ask(model)).message.content == (
        ReasoningPart("one\n\ntwo", native=items[0]),
        TextPart("all at once", native=items[1]),
        ToolCallPart("a", "f", {"x": 1}, native=items[2]),
    )


async def test_a_server_that_never_ends_an_item(server, model, ask):
    call = ask_for(1, "a", "f", '{"x":', "1}")[:-1]
    server.reply(sse(*say(0, "a", "b")[:-1], *call, completed()))
    assert (await ask(model)).message.content == (TextPart("ab"), ToolCallPart("a", "f", {"x": 1}))


async def test_a_server_that_does_not_stream(server, model, ask):
    items = [message("a"), function_call("x", "f")]
    whole = response("completed", usage=USAGE, output=items)
    server.reply(json.dumps(whole).encode(), content_type="application/json")
    assembled = await ask(model)
    assert (assembled.message.text, len(assembled.message.tool_calls)) == ("a", 1)
    assert (assembled.usage.output_tokens, assembled.finish) == (12, "tool_calls")
    details = {"reason": "max_output_tokens"}
    cut_short = response("incomplete", incomplete_details=details, output=items[:1])
    server.reply(json.dumps(cut_short).encode(), content_type="application/json")
    assert (await ask(model)).finish == "length"


async def test_a_refusal_is_what_the_model_says(server, model, ask):
    refusal = message(content=[{"type": "refusal", "refusal": "I cannot."}])
    server.reply(
        sse(added(0, message(content=[])), delta("refusal", 0, "I cannot."), done(0, refusal), completed())
    )
    assert (await ask(model)).message.content == (TextPart("I cannot.", native=refusal),)


async def test_an_empty_message_keeps_its_place(server, model, ask):
    items = [message(), reasoning()]
    server.reply(
        sse(*(event(at, item) for at, item in enumerate(items) for event in (added, done)), completed())
    )
    assert (await ask(model)).message.content == tuple(
        part("", native=item) for part, item in zip((TextPart, ReasoningPart), items, strict=True)
    )


async def test_an_opaque_item_in_the_middle_of_a_text_does_not_end_it(server, model, ask):
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    begin, *rest = say(0, "a", "b")
    server.reply(sse(begin, added(1, search), done(1, search), *rest, completed()))
    assert (await ask(model)).message.content == (
        TextPart("ab", native=message("a", "b")),
        ReasoningPart("", native=search),
    )


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("max_output_tokens", "length"), ("content_filter", "content_filter"), ("max_messages", "max_messages")],
)
async def test_incomplete(server, model, ask, reason, finish):
    server.reply(sse(*say(0, "a"), incomplete(reason)))
    assembled = await ask(model)
    assert (assembled.finish, assembled.usage.input_tokens) == (finish, 9)


@pytest.mark.parametrize(
    ("payload", "transient", "status"),
    [
        (failed("server_error"), True, None),
        (failed("rate_limit_exceeded"), True, None),
        (failed("something_new"), True, None),
        (failed("invalid_prompt"), False, 400),
        (failed("image_too_large"), False, 400),
        ({"type": "error", "code": "server_error", "message": "no"}, True, None),
        ({"type": "error", "code": "invalid_prompt", "message": "no"}, False, 400),
        ({"type": "error", "error": {"code": "context_length_exceeded", "message": "no"}}, False, None),
        ({"type": "error", "error": {"type": "insufficient_quota", "message": "no"}}, False, None),
        ({"error": {"message": "no", "code": 503}}, True, 503),
        ({"type": "response.cancelled", "response": response("cancelled")}, True, None),
        ({"type": "response.failed", "response": response("failed")}, True, None),
    ],
)
async def test_errors_inside_a_success(server, model, ask, payload, transient, status):
    server.reply(sse(*say(0, "a"), payload))
    error = await failure(ask, model)
    assert (error.transient, error.status) == (transient, status)


@pytest.mark.parametrize("payload", [{"no": "type"}, {"type": 7}, {"type": "x", "item": []}, {"type": None}])
async def test_what_makes_no_sense_is_no_event(server, model, ask, payload):
    server.reply(sse(payload, completed()))
    assert (await failure(ask, model)).transient


async def test_characters_cut_in_half(server, model, ask):
    first = b'data: {"type":"response.output_text.delta","output_index":0,"delta":"a\\ud83c"}\n\n'
    second = b'data: {"type":"response.output_text.delta","output_index":0,"delta":"\\udf89b"}\n\n'
    item = b'data: {"type":"response.output_item.done","output_index":0,"item":%b}\n\n'
    halved = json.dumps(message("x")).encode().replace(b'"x"', b'"\\ud83c"')
    server.reply(first, second, item % json.dumps(message("a🎉b")).encode(), sse(completed()))
    assert (await ask(model)).message.text == "a🎉b"
    server.reply(first, item % halved, sse(completed()))
    (part,) = (await ask(model)).message.content
    assert part == TextPart("a\ufffd", native=message("\ufffd"))


async def test_a_break_after_the_end_costs_nothing(server, model, ask):
    server.reply(sse(*say(0, "a"), completed()), CUT)
    assert (await ask(model)).message.text == "a"


async def test_an_answer_is_not_held_up_by_a_server_that_does_not_hang_up(server, model, ask, monkeypatch):
    monkeypatch.setattr("atto.models.late._CLOSING", 0.05)
    server.reply(answer("a"), asyncio.Event())
    assert (await ask(model)).message.text == "a"


async def test_stop_is_refused_before_anything_is_sent(server, model):
    request = ModelRequest(messages=(Message.user("hi"),), stop=("END",))
    with pytest.raises(ModelError, match="no `stop`: leave it out, or use OpenAIChat") as caught:
        await anext(model.stream(request))
    assert not caught.value.transient
    assert server.requests == []


async def test_text_comes_as_it_is_sent(server, model, request_hi):
    server.reply(sse(created(), *say(0, "a", "b")), sse(completed()))
    chunks = [chunk async for chunk in model.stream(request_hi)]
    assert [chunk for chunk in chunks if isinstance(chunk, TextChunk) and chunk.text] == [
        TextChunk("a"),
        TextChunk("b"),
    ]


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        (None, "openai"),
        ("https://eu.api.openai.com/v1", "openai"),
        ("https://acme.openai.azure.com/openai/v1/", "openai@acme.openai.azure.com"),
        ("http://user:password@localhost:8000/v1", "openai@localhost:8000"),
    ],
)
def test_the_origin(url, provider):
    assert OpenAIResponses("m", api_key=KEY, base_url=url, account="a").origin == Origin(provider, "m", "a")


def test_no_key():
    with pytest.raises(InvalidAgent, match="OpenAIResponses has no key: set OPENAI_API_KEY"):
        OpenAIResponses("m")
