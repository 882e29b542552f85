"""What the Messages API and its callers may do at the edges, beyond the contract of models."""

import anthropic
import msgspec
import pytest

from atto.models.anthropic import Anthropic
from atto.models.anthropic_request import messages_body
from atto.models.base import ModelRequest
from atto.protocol.errors import ModelError
from atto.protocol.messages import (
    ImagePart,
    Message,
    Origin,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from atto.testing.model_server import ModelServer

from .anthropic_payloads import ask_for, begun, delta, ended, over, refusal, say, started, stream

CANARY = "canary-token-98765"


@pytest.fixture
async def server():
    async with ModelServer() as running:
        yield running


@pytest.fixture
async def model(server):
    made = Anthropic("claude", api_key=CANARY, base_url=server.url)
    yield made
    await made.aclose()


async def test_a_spend_limit_told_in_the_stream_is_permanent(server, model, ask):
    error = refusal("rate_limit_error", details={"error_code": "enforced_spend_limit_reached"})
    server.reply(*stream(started(), error))
    with pytest.raises(ModelError) as caught:
        await ask(model)
    assert not caught.value.transient


async def test_half_a_character_in_an_opaque_block_can_be_saved(server, model, ask):
    whole = stream(started(), begun(0, {"type": "novel", "x": "HALF"}), over(0), *ended())
    server.reply(*(event.replace(b"HALF", b"\\ud83d") for event in whole))
    answer = await ask(model)
    assert "\ufffd".encode() in msgspec.json.encode(answer.message)


async def test_null_in_a_delta_says_nothing(server, model, ask):
    server.reply(*stream(started(), *say(0, "a")[:2], delta(0, "text_delta", text=None), over(0), *ended()))
    assert (await ask(model)).message.text == "a"


async def test_text_that_was_empty_is_not_sent_again(server, model, ask):
    server.reply(*stream(started(), *say(0, citations=[]), *say(1, "x"), *ended()))
    answer = (await ask(model)).message
    request = ModelRequest(messages=(Message.user("hi"), answer))
    body = messages_body(request, origin=model.origin, max_tokens=9, options={})
    assert body["messages"][1]["content"] == [{"type": "text", "text": "x"}]
    assert answer.content[-1] == TextPart("x")


async def test_the_token_of_a_client_of_ones_own_stays_out_of_errors_and_its_telemetry_off(server, ask):
    server.refuse(401, refusal("authentication_error", f"bad {CANARY}"))
    async with anthropic.AsyncAnthropic(auth_token=CANARY, base_url=server.url) as client:
        model = Anthropic("claude", client=client)
        with pytest.raises(ModelError) as caught:
            await ask(model)
    assert "bad ***" in str(caught.value)
    assert "traceparent" not in server.requests[-1].headers


async def test_a_fresh_key_that_cannot_be_sent_is_not_told(server, ask):
    async def key():
        return f"{CANARY}\n"

    model = Anthropic("claude", api_key=key, base_url=server.url)
    with pytest.raises(ModelError, match="cannot be sent") as caught:
        await ask(model)
    assert CANARY not in str(caught.value)
    assert not caught.value.transient
    await model.aclose()


async def test_white_space_is_not_sent_again(server, model, ask):
    events = (*say(0, "\n\n"), *say(1, " ", citations=[{}]), *ask_for(2, "a", "look"))
    server.reply(*stream(started(), *events, *ended("tool_use")))
    answer = (await ask(model)).message
    request = ModelRequest(messages=(Message.user(" \n"), Message.user("hi"), answer), instruction=" ")
    body = messages_body(request, origin=model.origin, max_tokens=9, options={})
    assert body["messages"][0]["content"] == [{"type": "text", "text": "hi"}]
    assert [block["type"] for block in body["messages"][1]["content"]] == ["tool_use"]
    assert "system" not in body


def test_the_result_of_a_failed_call_is_text_only():
    seen = (TextPart("bad"), ImagePart(data=b"a", media_type="image/png"))
    said = (
        Message.user("hi"),
        Message("assistant", (ToolCallPart("a", "look"),), Origin("other", "m")),
        Message("tool", (ToolResultPart("a", "look", seen, is_error=True),)),
    )
    request = ModelRequest(messages=said)
    body = messages_body(request, origin=Origin("anthropic", "claude"), max_tokens=9, options={})
    (result,) = body["messages"][2]["content"]
    assert result["is_error"]
    assert result["content"].startswith("bad\n[image, image/png")


@pytest.mark.parametrize(
    "novel",
    [
        {"type": "novel", "content": {"x": 1}, "index": "a"},
        {"type": "ping", "index": None},
        {"type": "novel", "delta": "x", "message": "y"},
        delta(0, "novel_delta", text={"x": 1}),
    ],
)
async def test_what_is_not_known_may_hold_anything(server, model, ask, novel):
    first, *rest = say(0, "a")
    server.reply(*stream(started(), first, novel, *rest, *ended()))
    assert (await ask(model)).message.text == "a"


async def test_what_is_known_must_make_sense(server, model, ask):
    first, *rest = say(0, "a")
    server.reply(*stream(started(), first, delta(0, "text_delta", text={"x": 1}), *rest, *ended()))
    with pytest.raises(ModelError, match="not valid") as caught:
        await ask(model)
    assert caught.value.transient
