"""The adapter of the Messages API: what its requests say, and what is particular about its streams."""

import pytest

from atto.models import Anthropic, Closeable, Model, ModelRequest, ToolSpec
from atto.models.anthropic import MAX_TOKENS
from atto.protocol.errors import InvalidAgent, MissingExtra, ModelError
from atto.protocol.messages import (
    FilePart,
    ImagePart,
    Message,
    Origin,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
    Usage,
)
from atto.testing.model_server import ModelServer

from .anthropic_payloads import ask_for, begun, delta, ended, over, refusal, say, started, stream, think
from .conftest import KEY

OWN = Origin("anthropic", "claude")


@pytest.fixture
async def server():
    async with ModelServer() as running:
        yield running


@pytest.fixture
async def model(server):
    claude = Anthropic("claude", api_key=KEY, base_url=server.url)
    yield claude
    await claude.aclose()


@pytest.fixture
def sent(server, model, ask):
    """The body of a request."""

    async def send(request, own=model):
        server.reply(*stream(started(), *say(0, "ok"), *ended()))
        await ask(own, request)
        return server.requests[-1].body

    return send


def hi(**fields):
    return ModelRequest(messages=(Message.user("hi"),), **fields)


def test_it_is_a_model():
    assert isinstance(Anthropic("m", api_key=KEY), Model)
    assert isinstance(Anthropic("m", api_key=KEY), Closeable)


def test_what_cannot_work_is_said_at_once(monkeypatch):
    for wrong, words in (
        ({}, "ANTHROPIC_API_KEY"),
        ({"api_key": "sk-ключ"}, "cannot be sent"),
        ({"api_key": KEY, "base_url": "localhost:1"}, "base URL"),
        ({"api_key": KEY, "max_tokens": 0}, "max_tokens"),
    ):
        with pytest.raises(InvalidAgent, match=words) as caught:
            Anthropic("m", **wrong)
        assert "ключ" not in str(caught.value)
    monkeypatch.setattr("atto.models.anthropic.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"atto-agents\[anthropic\]"):
        Anthropic("m", api_key=KEY)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        (None, "anthropic"),
        ("https://api.anthropic.com/v1", "anthropic"),
        ("https://api.anthropic.com.evil.example", "anthropic@api.anthropic.com.evil.example"),
        ("http://user:secret@localhost:8000", "anthropic@localhost:8000"),
    ],
)
def test_who_serves(url, provider):
    assert Anthropic("m", api_key=KEY, base_url=url).origin == Origin(provider, "m")


async def test_the_smallest_request(sent):
    assert await sent(hi()) == {
        "model": "claude",
        "max_tokens": MAX_TOKENS,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        "stream": True,
    }


async def test_what_a_request_says(sent):
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    body = await sent(
        hi(
            instruction="be brief",
            tools=(ToolSpec("look", "looks", schema),),
            temperature=0.5,
            max_tokens=7,
            stop=("x",),
            output_schema=schema,
            cache_key="s",
            options={"output_config": {"effort": "low"}, "thinking": {"type": "disabled"}},
        )
    )
    assert body["system"] == "be brief"
    assert body["tools"] == [{"name": "look", "description": "looks", "input_schema": schema}]
    assert (body["temperature"], body["max_tokens"], body["stop_sequences"]) == (0.5, 7, ["x"])
    assert body["output_config"] == {
        "format": {"type": "json_schema", "schema": {**schema, "required": []}},
        "effort": "low",
    }
    assert (body["cache_control"], body["thinking"]) == ({"type": "ephemeral"}, {"type": "disabled"})
    assert "cache_control" not in await sent(hi(cache_key="s", options={"cache_control": None}))


async def test_media_and_files(sent):
    parts = (
        TextPart(""),
        TextPart("look"),
        ImagePart(url="https://x/a.png"),
        ImagePart(data=b"a", media_type="image/png"),
        FilePart(data=b"%PDF", media_type="application/pdf", name="a.pdf"),
        FilePart(url="https://x/b.pdf"),
        FilePart(data="ü".encode(), media_type="text/plain"),
        FilePart(data=b"x", media_type="audio/wav", name="a.wav"),
    )
    body = await sent(ModelRequest(messages=(Message("user", parts),)))
    blocks = body["messages"][0]["content"]
    assert [block["type"] for block in blocks] == ["text", "image", "image", *3 * ["document"], "text"]
    assert blocks[1]["source"] == {"type": "url", "url": "https://x/a.png"}
    assert blocks[2]["source"] == {"type": "base64", "media_type": "image/png", "data": "YQ=="}
    assert (blocks[3]["title"], blocks[3]["source"]["media_type"]) == ("a.pdf", "application/pdf")
    assert blocks[5]["source"] == {"type": "text", "media_type": "text/plain", "data": "ü"}
    assert "a.wav" in blocks[6]["text"]


async def test_results_and_what_the_user_says_next_are_one_turn(sent):
    odd = "call.of another/provider"
    calls = (ToolCallPart("a", "look"), ToolCallPart(odd, "no name", malformed="{oops"))
    results = (
        ToolResultPart("a", "look", (TextPart("seen"), ImagePart(data=b"a", media_type="image/png"))),
        ToolResultPart(odd, "no name", "failed", is_error=True),
    )
    said = (
        Message.user("hi"),
        Message("assistant", (ReasoningPart("hm"), TextPart("wait"), *calls), Origin("other", "m")),
        Message("tool", results),
        Message.user("and?"),
    )
    turns = (await sent(ModelRequest(messages=said)))["messages"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert [block["type"] for block in turns[1]["content"]] == ["text", "tool_use", "tool_use"]
    second, (first_result, second_result, text) = turns[1]["content"][2], turns[2]["content"]
    assert (second["name"], second["input"]) == ("no_name", {"malformed": "{oops"})
    assert second["id"] == second_result["tool_use_id"] != odd
    assert (second_result["content"], second_result["is_error"]) == ("failed", True)
    assert [block["type"] for block in first_result["content"]] == ["text", "image"]
    assert text == {"type": "text", "text": "and?"}


async def test_thinking_is_signed_and_usage_adds_up(server, model, ask):
    server.reply(*stream(started(), *think(0, "h", "m"), *say(1, "ok"), *ended()))
    answer = await ask(model)
    thought, text = answer.message.content
    assert (thought.text, thought.native["signature"]) == ("hm", "signed")
    assert (text.text, text.native) == ("ok", None)
    assert answer.usage == Usage(
        input_tokens=9, output_tokens=12, cache_read_tokens=4, cache_write_tokens=2, reasoning_tokens=5
    )


async def test_a_call_may_come_whole_or_without_arguments(server, model, ask):
    whole = [begun(0, {"type": "tool_use", "id": "a", "name": "look", "input": {"n": "ü"}}), over(0)]
    server.reply(*stream(started(), *whole, *ask_for(1, "b", "look"), *ended("end_turn")))
    answer = await ask(model)
    assert [call.arguments for call in answer.message.tool_calls] == [{"n": "ü"}, {}]
    assert answer.finish == "tool_calls"


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("stop_sequence", "stop"), ("model_context_window_exceeded", "length"), ("new_reason", "new_reason")],
)
async def test_why_it_ended(server, model, ask, reason, finish):
    server.reply(*stream(started(), *say(0, "ok"), *ended(reason)))
    assert (await ask(model)).finish == finish


async def test_an_answer_in_one_document(server, model, ask):
    document = {
        "type": "message",
        "content": [
            {"type": "text", "text": "one"},
            {"type": "tool_use", "id": "a", "name": "look", "input": {"n": 1}},
        ],
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 2, "output_tokens": 1},
    }
    server.refuse(200, document)
    answer = await ask(model)
    assert (answer.message.text, answer.finish, answer.usage) == ("one", "tool_calls", Usage(2, 1))
    assert answer.message.tool_calls[0].arguments == {"n": 1}


@pytest.mark.parametrize(
    ("kind", "status", "transient"),
    [
        ("overloaded_error", 529, True),
        ("rate_limit_error", 429, True),
        ("api_error", 500, True),
        ("invalid_request_error", 400, False),
        ("authentication_error", 401, False),
        ("billing_error", 402, False),
    ],
)
async def test_an_error_inside_a_success_has_the_status_that_it_would_have_had(
    server, model, ask, kind, status, transient
):
    for replies in (stream(started(), refusal(kind)), [refusal(kind)]):
        if isinstance(replies[0], bytes):
            server.reply(*replies)
        else:
            server.refuse(200, replies[0])
        with pytest.raises(ModelError) as caught:
            await ask(model)
        assert (caught.value.status, caught.value.transient) == (status, transient)


async def test_a_spend_limit_is_no_passing_shortage(server, model, ask):
    body = refusal("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"})
    server.refuse(429, body)
    with pytest.raises(ModelError, match="enforced_spend_limit_reached") as caught:
        await ask(model)
    assert (caught.value.status, caught.value.transient) == (429, False)


async def test_a_delta_of_a_block_that_was_not_begun_makes_no_sense(server, model, ask):
    server.reply(*stream(started(), delta(3, "text_delta", text="x"), *ended()))
    with pytest.raises(ModelError, match="not begun") as caught:
        await ask(model)
    assert caught.value.transient


async def test_a_key_for_each_request(server, ask):
    keys = iter(["first-key-0123456789", "second-key-0123456789"])

    async def next_key():
        return next(keys)

    model = Anthropic("claude", api_key=next_key, base_url=server.url)
    for _ in range(2):
        server.reply(*stream(started(), *say(0, "ok"), *ended()))
        await ask(model)
    await model.aclose()
    sent = [
        {value for name, value in request.headers.items() if name in {"authorization", "x-api-key"}}
        for request in server.requests
    ]
    assert sent == [{"Bearer first-key-0123456789"}, {"Bearer second-key-0123456789"}]  # no other credential
    assert "traceparent" not in server.requests[0].headers


async def test_a_client_of_ones_own(server, ask):
    import anthropic

    async with anthropic.AsyncAnthropic(api_key=KEY, base_url=server.url) as client:
        model = Anthropic("claude", client=client)
        server.refuse(529, refusal("overloaded_error"))
        with pytest.raises(ModelError):
            await ask(model)
        assert len(server.requests) == 1  # not tried again by the SDK
        await model.aclose()
        server.reply(*stream(started(), *say(0, "ok"), *ended()))
        assert (await ask(model)).message.text == "ok"
    with pytest.raises(InvalidAgent, match="either"):
        Anthropic("claude", client=client, api_key=KEY)
