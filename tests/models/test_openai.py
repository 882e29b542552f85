"""The documented shapes of the stream, from a server of raw HTTP."""

import asyncio
import json

import pytest

from atto.models import ModelRequest, PartDone, ReasoningChunk, TextChunk, ToolSpec
from atto.protocol.errors import ModelError
from atto.protocol.messages import Message, ReasoningPart, TextPart, ToolCallPart, Usage

from .chat_server import DONE, answer, calls, delta, finish, piece, sse
from .conftest import KEY

USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 12,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
COUNTED = Usage(input_tokens=9, output_tokens=12, cache_read_tokens=4, reasoning_tokens=5)


async def test_plain_text(server, model, ask):
    server.reply(
        sse(delta(role="assistant", content="")),
        sse(delta(content="It is")),
        sse(delta(content=" sunny")),
        sse(finish()),
        sse({"choices": [], "usage": USAGE}),
        DONE,
    )
    assembled = await ask(model)
    assert assembled.message == Message("assistant", (TextPart("It is sunny"),), model.origin)
    assert (assembled.usage, assembled.finish) == (COUNTED, "stop")


async def test_what_is_sent(server, model, ask):
    server.reply(answer("ok"))
    await ask(
        model, ModelRequest(messages=(Message.user("hi"),), tools=(ToolSpec("f", "", {"type": "object"}),))
    )
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body["messages"] == [{"role": "user", "content": "hi"}]
    assert request.body["tools"][0]["function"]["name"] == "f"
    assert (request.body["stream"], request.body["model"]) == (True, "test-model")


async def test_pieces_come_as_the_server_sends_them(server, model, request_hi):
    server.reply(sse(delta(content="a"), delta(content="b")), sse(finish()), DONE)
    chunks = [chunk async for chunk in model.stream(request_hi)]
    assert [chunk for chunk in chunks if isinstance(chunk, TextChunk)] == [TextChunk("a"), TextChunk("b")]


async def test_tool_calls_in_pieces_and_parallel(server, model, ask):
    server.reply(
        sse(calls(piece(0, "call_a", "weather", ""))),
        sse(calls(piece(0, arguments='{"ci')), calls(piece(0, arguments='ty":"Rome"}'))),
        sse(calls(piece(1, "call_b", "weather", ""), piece(1, arguments='{"city":"Oslo"}'))),
        sse(finish("tool_calls")),
        DONE,
    )
    assembled = await ask(model)
    assert assembled.message.content == (
        ToolCallPart("call_a", "weather", {"city": "Rome"}),
        ToolCallPart("call_b", "weather", {"city": "Oslo"}),
    )
    assert assembled.finish == "tool_calls"


async def test_like_ollama_index_0_and_no_ids_and_the_reason_stop(server, model, ask):
    server.reply(
        sse(calls(piece(0, None, "weather", '{"city":"Rome"}'))),
        sse(calls(piece(0, None, "weather", '{"city":"Oslo"}'))),
        sse(finish("stop")),
        DONE,
    )
    assembled = await ask(model)
    first, second = assembled.message.tool_calls
    assert (first.arguments, second.arguments) == ({"city": "Rome"}, {"city": "Oslo"})
    assert first.id != second.id
    assert assembled.finish == "tool_calls"


async def test_like_vllm_an_empty_id_repeated(server, model, ask):
    server.reply(
        sse(calls(piece(0, "x", "weather")), calls(piece(0, "", arguments='{"city"'))),
        sse(calls(piece(0, "", arguments=':"Rome"}')), finish("tool_calls")),
        DONE,
    )
    assert (await ask(model)).message.tool_calls == (ToolCallPart("x", "weather", {"city": "Rome"}),)


async def test_arguments_as_an_object(server, model, ask):
    server.reply(sse(calls(piece(0, "x", "weather", {"city": "Rome"})), finish("tool_calls")), DONE)
    assert (await ask(model)).message.tool_calls[0].arguments == {"city": "Rome"}


async def test_a_thought_signature_is_kept_and_sent_again(server, model, ask):
    extra = {"google": {"thought_signature": "sig"}}
    server.reply(sse(calls({**piece(0, "x", "f", "{}"), "extra_content": extra}), finish("tool_calls")), DONE)
    message = (await ask(model)).message
    assert message.tool_calls[0].native == {"extra_content": extra}
    server.reply(answer("ok"))
    await ask(model, ModelRequest(messages=(message,)))
    assert server.requests[-1].body["messages"][0]["tool_calls"][0]["extra_content"] == extra


@pytest.mark.parametrize(
    "payloads",
    [
        [finish("stop", usage=USAGE)],
        [finish("stop"), {"choices": [], "usage": USAGE}],
        [finish("stop"), finish("stop", usage=USAGE)],
        [
            {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": None}},
            finish("stop", usage=USAGE),
        ],
        [{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USAGE}]}],
        [finish("stop"), {"choices": None, "usage": USAGE}],
    ],
)
async def test_usage_wherever_it_comes(server, model, ask, payloads):
    server.reply(sse(delta(content="a"), *payloads), DONE)
    assert (await ask(model)).usage == COUNTED


async def test_empty_choices_comments_and_null_fields(server, model, ask):
    server.reply(
        b": OPENROUTER PROCESSING\n\n",
        sse({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}),
        sse(delta(role="assistant", content=None, tool_calls=None, refusal=None)),
        sse({"choices": [{"index": 1, "delta": {"content": "another choice"}}]}),
        sse(delta(content="a")),
        b": ping\n\n",
        sse(finish(), finish("length")),
        DONE,
    )
    assembled = await ask(model)
    assert (assembled.message.text, assembled.finish) == ("a", "stop")


async def test_content_as_a_list(server, model, ask):
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}
    server.reply(
        sse(delta(content=[thinking]), delta(content=[{"type": "text", "text": "a"}]), finish()), DONE
    )
    assert (await ask(model)).message.content == (
        ReasoningPart("hm", native={"field": "content"}),
        TextPart("a"),
    )


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_reasoning(server, model, request_hi, field):
    server.reply(sse(delta(**{field: "hm"}), delta(content="a"), finish()), DONE)
    chunks = [chunk async for chunk in model.stream(request_hi)]
    assert chunks[:3] == [ReasoningChunk("hm"), PartDone({"field": field}), TextChunk("a")]


async def test_a_refusal_is_what_the_model_says(server, model, ask):
    server.reply(sse(delta(refusal="I cannot."), finish()), DONE)
    assert (await ask(model)).message.text == "I cannot."


async def test_a_server_that_never_finishes_but_is_done(server, model, ask):
    server.reply(sse(delta(content="a")), DONE)
    assert (await ask(model)).finish == "stop"


async def test_done_without_a_word_is_no_answer(server, model, ask):
    server.reply(DONE)
    with pytest.raises(ModelError) as caught:
        await ask(model)
    assert caught.value.transient


async def test_a_finish_without_done_is_an_answer(server, model, ask):
    server.reply(sse(delta(content="a"), finish()))
    assert (await ask(model)).message.text == "a"


async def test_an_empty_answer(server, model, ask):
    server.reply(sse(finish()), DONE)
    assert (await ask(model)).message.content == ()


async def test_a_server_that_does_not_stream(server, model, ask):
    message = {"role": "assistant", "content": "a", "tool_calls": [piece(None, "x", "f", "{}")]}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": USAGE}
    server.reply(json.dumps(whole).encode(), content_type="application/json; charset=utf-8")
    assembled = await ask(model)
    assert (assembled.message.text, len(assembled.message.tool_calls), assembled.usage) == ("a", 1, COUNTED)


async def test_characters_split_between_bytes_at_every_position(server, model, ask):
    text = "é🎉漢字"
    data = sse(delta(content=text), finish()) + DONE
    for at in range(1, len(data)):
        server.reply(data[:at], data[at:])
        assert (await ask(model)).message.text == text
    server.reply(*(data[at : at + 1] for at in range(len(data))))
    assert (await ask(model)).message.text == text


async def test_characters_cut_in_half_by_a_server_that_counts_in_utf_16(server, model, ask):
    first = b'data: {"choices":[{"delta":{"content":"a\\ud83c"}}]}\n\n'
    second = b'data: {"choices":[{"delta":{"content":"\\udf89b"}}]}\n\n'
    server.reply(first, second, sse(finish()), DONE)
    assert (await ask(model)).message.text == "a🎉b"
    server.reply(first, sse(finish()), DONE)
    assert (await ask(model)).message.text == "a\ufffd"


async def test_one_connection_serves_one_request_after_the_other(server, model, ask):
    for _ in range(5):
        server.reply(answer("It is sunny"))
        await ask(model)
    assert server.connections == 1


async def test_an_answer_is_not_held_up_by_a_server_that_does_not_hang_up(server, model, ask, monkeypatch):
    monkeypatch.setattr("atto.models.late._TRAILING", 0.05)
    monkeypatch.setattr("atto.models.late._CLOSING", 0.05)
    for ending in (sse(finish()), sse(finish()) + DONE):
        server.reply(sse(delta(content="a")), ending, asyncio.Event())
        assert (await ask(model)).message.text == "a"


async def test_a_hundred_streams_at_once(server, model, ask):
    everybody_is_here = asyncio.Barrier(100)
    data = answer("It is sunny")
    for _ in range(100):
        server.reply(data[:80], everybody_is_here, data[80:])
    async with asyncio.timeout(30):
        answers = await asyncio.gather(*(ask(model) for _ in range(100)))
    assert {assembled.message.text for assembled in answers} == {"Itissunny"}
    assert server.connections == 100
