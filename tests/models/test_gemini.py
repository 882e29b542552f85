"""The documented shapes of Gemini's stream, from a server of raw HTTP."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.models import Assembler, ModelRequest, ReasoningChunk, TextChunk, ToolSpec
from atto.models.failures import Failures
from atto.models.gemini import Gemini
from atto.models.gemini_request import gemini_body
from atto.models.gemini_stream import GeminiReader
from atto.protocol.errors import ModelError
from atto.protocol.messages import Message, Origin, ReasoningPart, TextPart, ToolCallPart, Usage

from .chat_server import sse
from .conftest import KEY
from .gemini_payloads import USAGE, answer, called, ended, said, text

COUNTED = Usage(input_tokens=11, output_tokens=12, cache_read_tokens=4, reasoning_tokens=5)


@pytest.fixture
async def model(server):
    gemini = Gemini("gemini-3-pro", api_key=KEY, base_url=server.url.removesuffix("/v1"))
    yield gemini
    await gemini.aclose()


async def replayed(server, model, ask, message):
    """The parts that go back for `message`."""
    server.reply(answer("ok"))
    await ask(model, ModelRequest(messages=(Message.user("hi"), message)))
    return server.requests[-1].body["contents"][1]["parts"]


async def test_plain_text(server, model, ask):
    server.reply(
        sse(said(text("It is"))),
        sse(said(text(" sunny"))),
        sse(said(text(""), reason="STOP", usageMetadata=USAGE)),
    )
    assembled = await ask(model)
    assert assembled.message == Message("assistant", (TextPart("It is sunny"),), model.origin)
    assert (assembled.usage, assembled.finish) == (COUNTED, "stop")


async def test_what_is_sent(server, model, ask):
    server.reply(answer("ok"))
    tools = (ToolSpec("f", "does f", {"type": "object"}),)
    await ask(model, ModelRequest(messages=(Message.user("hé"),), instruction="Be brief.", tools=tools))
    (request,) = server.requests
    assert request.path == "/v1/models/gemini-3-pro:streamGenerateContent?alt=sse"
    assert request.headers["x-goog-api-key"] == KEY
    assert request.headers["content-type"] == "application/json"
    assert request.body == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "hé"}]}],
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "f", "description": "does f", "parametersJsonSchema": {"type": "object"}}
                ]
            }
        ],
    }


async def test_pieces_come_as_the_server_sends_them(server, model, request_hi):
    server.reply(sse(said(text("a")), said(text("b"))), sse(ended()))
    chunks = [chunk async for chunk in model.stream(request_hi)]
    assert [chunk for chunk in chunks if isinstance(chunk, TextChunk)] == [TextChunk("a"), TextChunk("b")]


async def test_thoughts(server, model, ask, request_hi):
    payloads = sse(said(text("h", thought=True)), said(text("m", thought=True), text("a"), reason="STOP"))
    server.reply(payloads)
    chunks = [chunk async for chunk in model.stream(request_hi)]
    assert chunks[:3] == [ReasoningChunk("h"), ReasoningChunk("m"), TextChunk("a")]
    server.reply(payloads)
    message = (await ask(model)).message
    assert message.content == (ReasoningPart("hm"), TextPart("a"))
    assert await replayed(server, model, ask, message) == [{"text": "hm", "thought": True}, {"text": "a"}]


async def test_parallel_calls_of_which_the_first_is_signed_and_none_has_an_id(server, model, ask):
    parts = [
        called("weather", {"city": "Rome"}, "sig"),
        called("weather", {"city": "Oslo"}),
        called("now"),
    ]
    server.reply(sse(said(*parts[:2])), sse(said(parts[2], reason="STOP")))
    assembled = await ask(model)
    first, second, third = assembled.message.tool_calls
    assert [part.arguments for part in (first, second, third)] == [{"city": "Rome"}, {"city": "Oslo"}, {}]
    assert len({first.id, second.id, third.id}) == 3
    assert assembled.finish == "tool_calls"
    assert "Rome" not in json.dumps(first.native)
    assert await replayed(server, model, ask, assembled.message) == parts


async def test_ids_of_the_provider_are_kept(server, model, ask):
    parts = [called("f", {"x": 1}, "sig", id="one"), called("f", {"x": 2}, id="two")]
    server.reply(sse(said(*parts, reason="STOP")))
    message = (await ask(model)).message
    assert [part.id for part in message.tool_calls] == ["one", "two"]
    assert await replayed(server, model, ask, message) == parts
    responses = server.requests[-1].body["contents"][2]["parts"]
    assert [response["functionResponse"]["id"] for response in responses] == ["one", "two"]


async def test_signed_parts_go_back_as_they_came_and_where_they_stood(server, model, ask):
    parts = [
        text("let me ", "s0", thought=True),
        text("It is"),
        text(" sunny", "s1"),
        text("."),
        text("", "s2"),
    ]
    server.reply(*(sse(said(part)) for part in parts), sse(ended()))
    message = (await ask(model)).message
    assert message.text == "It is sunny."
    assert await replayed(server, model, ask, message) == parts


async def test_what_the_adapter_does_not_know_goes_back_untouched(server, model, ask):
    parts = [
        {"executableCode": {"language": "PYTHON", "code": "1+1"}, "novel": {"a": [None, 1.5]}},
        {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}},
        {"inlineData": {"mimeType": "image/png", "data": "cG5n"}, "thoughtSignature": "s"},
        {"thoughtSignature": "alone"},
        {"toolCall": {"x": 1}},
    ]
    server.reply(sse(said(text("a"), *parts[:2])), sse(said(text("b"), *parts[2:], reason="STOP")))
    message = (await ask(model)).message
    assert message.text == "ab"
    sent = await replayed(server, model, ask, message)
    assert sent == [{"text": "a"}, *parts[:2], {"text": "b"}, *parts[2:]]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("STOP", "stop"),
        ("FUNCTION_CALL", "stop"),
        ("MAX_TOKENS", "length"),
        ("CONTINUATION", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("MODEL_ARMOR", "content_filter"),
        ("IMAGE_SAFETY", "content_filter"),
        ("LANGUAGE", "language"),
        ("OTHER", "other"),
        ("NEVER_HEARD_OF", "never_heard_of"),
    ],
)
async def test_why_it_ended(server, model, ask, reason, finish):
    server.reply(sse(said(text("a")), ended(reason)))
    assert (await ask(model)).finish == finish


@pytest.mark.parametrize("reason", ["SAFETY", "OTHER", "PROHIBITED_CONTENT"])
async def test_a_blocked_prompt(server, model, ask, reason):
    server.reply(sse({"promptFeedback": {"blockReason": reason}, "usageMetadata": {"promptTokenCount": 3}}))
    assembled = await ask(model)
    assert (assembled.message.content, assembled.finish) == ((), "content_filter")
    assert assembled.usage.input_tokens == 3


@pytest.mark.parametrize(
    ("reason", "transient"),
    [
        ("MALFORMED_FUNCTION_CALL", True),
        ("MALFORMED_RESPONSE", True),
        ("UNEXPECTED_TOOL_CALL", True),
        ("MISSING_THOUGHT_SIGNATURE", False),
        ("PUP_LIMITED_DISABLED", False),
    ],
)
async def test_an_answer_that_is_none(server, model, request_hi, reason, transient):
    spoilt = {"index": 0, "finishReason": reason, "finishMessage": f"print(f()) {KEY}"}
    server.reply(sse(said(text("a")), {"candidates": [spoilt], "usageMetadata": USAGE}))
    assembler = Assembler()
    with pytest.raises(ModelError, match=rf"{reason}: print\(f\(\)\) \*\*\*") as caught:
        async for chunk in model.stream(request_hi):
            assembler.add(chunk)
    assert caught.value.transient is transient
    assert assembler._usage == COUNTED


@pytest.mark.parametrize(
    "payloads",
    [
        [said(text("a"), reason="STOP"), said(text("b"), reason="MAX_TOKENS")],
        [said(text("a"), reason="STOP"), said(text("b"), reason="STOP"), ended()],
        [{"candidates": [{"index": 1, "content": {"parts": [text("another")]}}]}, said(text("ab")), ended()],
        [{"candidates": []}, {"candidates": None}, {}, said(), said(text("ab")), ended()],
        [{"candidates": [{"content": {}}]}, said(text("ab"), reason="FINISH_REASON_UNSPECIFIED"), ended()],
        [said(text("ab")), {"candidates": [{"finishReason": "STOP", "content": None}]}, {"novel": 1}],
    ],
)
async def test_odd_payloads(server, model, ask, payloads):
    server.reply(sse(*payloads))
    assembled = await ask(model)
    assert (assembled.message.content, assembled.finish) == ((TextPart("ab"),), "stop")


async def test_comments_pings_and_data_without_a_space(server, model, ask):
    payload = json.dumps(said(text("a"))).encode()
    server.reply(
        b": hello\n\n",
        b"event: ping\ndata:" + payload + b"\r\n\r\n",
        b": ping\n\nid: 7\n",
        sse(ended()),
        b"data: [DONE]\n\n",
    )
    assert (await ask(model)).message.text == "a"


@pytest.mark.parametrize("whole", [said(text("a"), reason="STOP"), [said(text("a")), ended()]])
async def test_a_server_that_does_not_stream(server, model, ask, whole):
    server.reply(json.dumps(whole).encode(), content_type="application/json; charset=UTF-8")
    assert (await ask(model)).message.text == "a"


async def test_the_last_usage_counts(server, model, ask):
    server.reply(
        sse(said(text("a"), usageMetadata={"promptTokenCount": 9}), ended()), sse({"usageMetadata": USAGE})
    )
    assert (await ask(model)).usage == COUNTED


async def test_characters_split_between_bytes(server, model, ask):
    value = "é🎉漢字"
    data = sse(said(text(value)), ended())
    server.reply(*(data[at : at + 1] for at in range(len(data))))
    assert (await ask(model)).message.text == value


async def test_characters_cut_in_half_by_a_server_that_counts_in_utf_16(server, model, ask):
    first = b'data: {"candidates":[{"content":{"parts":[{"text":"a\\ud83c"}]}}]}\n\n'
    second = b'data: {"candidates":[{"content":{"parts":[{"text":"\\udf89b"}]}}]}\n\n'
    server.reply(first, second, sse(ended()))
    assert (await ask(model)).message.text == "a🎉b"
    signed = first.replace(b"}]}}]", b',"thoughtSignature":"s"}]}}]')
    server.reply(first, signed, sse(ended()))
    message = (await ask(model)).message
    assert message.text == "a\ufffda\ufffd"
    assert message.content[1].native == text("a\ufffd", "s")


async def test_arguments_in_pieces_are_refused_in_words(server, model, ask):
    piece = {"functionCall": {"name": "f", "partialArgs": [{"jsonPath": "$.a"}], "willContinue": True}}
    server.reply(sse(said(piece)))
    with pytest.raises(ModelError, match="streamFunctionCallArguments") as caught:
        await ask(model)
    assert not caught.value.transient


async def test_one_connection_serves_one_request_after_the_other(server, model, ask):
    for _ in range(5):
        server.reply(answer("It is sunny"))
        await ask(model)
    assert server.connections == 1


async def test_an_answer_is_not_held_up_by_a_server_that_does_not_hang_up(server, model, ask, monkeypatch):
    monkeypatch.setattr("atto.models.late._TRAILING", 0.05)
    server.reply(sse(said(text("a")), ended()), asyncio.Event())
    assert (await ask(model)).message.text == "a"


async def test_a_hundred_and_fifty_streams_at_once(server, model, ask):
    everybody_is_here = asyncio.Barrier(150)
    data = answer("It is sunny")
    for _ in range(150):
        server.reply(data[:80], everybody_is_here, data[80:])
    async with asyncio.timeout(60):
        answers = await asyncio.gather(*(ask(model) for _ in range(150)))
    assert {assembled.message.text for assembled in answers} == {"Itissunny"}
    assert server.connections == 150


_signatures = st.none() | st.text(max_size=3)
_parts = st.one_of(
    st.builds(text, st.text(max_size=4), _signatures),
    st.builds(text, st.text(max_size=4), _signatures, thought=st.just(True)),
    st.builds(called, st.just("f"), st.none() | st.dictionaries(st.text(), st.integers()), _signatures),
    st.builds(called, st.just("f"), st.none(), _signatures, id=st.text(min_size=1, max_size=2)),
    st.builds(lambda code: {"executableCode": {"code": code}}, st.text(max_size=4)),
)


def joined(parts):
    """The parts as they may be sent: texts that are nothing but text, joined."""
    whole = []
    for part in parts:
        bare = "text" in part and part.keys() <= {"text", "thought"}
        if bare and not part["text"]:
            continue
        if bare and whole and whole[-1].keys() == part.keys():
            whole[-1] = {**part, "text": whole[-1]["text"] + part["text"]}
        else:
            whole.append(part)
    return whole


@given(st.lists(_parts, max_size=6))
def test_whatever_was_said_is_said_again(parts):
    reader, assembler = GeminiReader(Failures("m")), Assembler(Origin("gemini", "gemini-2.5-pro"))
    for payload in (*map(said, parts), ended()):
        for chunk in reader.read(json.dumps(payload).encode()):
            assembler.add(chunk)
    for chunk in reader.end():
        assembler.add(chunk)
    message = assembler.finish().message
    texts = [part["text"] for part in parts if "text" in part and not part.get("thought")]
    assert message.text == "".join(texts)
    assert [part.name for part in message.tool_calls] == ["f"] * sum("functionCall" in p for p in parts)
    assert all(isinstance(part, TextPart | ReasoningPart | ToolCallPart) for part in message.content)
    contents = gemini_body(
        ModelRequest(messages=(message,)), origin=Origin("gemini", "gemini-2.5-pro"), options={}
    )["contents"]
    assert [part for content in contents[:1] for part in content["parts"]] == joined(parts)
