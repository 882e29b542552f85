"""Reasoning goes back to the server that told it, in the field in which it did."""

import json

import pytest

from atto.models import Assembler, ModelRequest
from atto.models.chat_request import chat_body
from atto.models.chat_stream import ChatReader
from atto.models.failures import Failures
from atto.protocol.messages import Message, Origin, ReasoningPart, TextPart

HERE = Origin("openai-chat@api.example.com", "thinker")
CALL = {"index": 0, "id": "c1", "function": {"name": "stock", "arguments": '{"n":1}'}}


def read(*deltas, reason="tool_calls"):
    reader, assembler = ChatReader(Failures("m")), Assembler(HERE)
    payloads = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    payloads.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    for payload in payloads:
        for chunk in reader.read(json.dumps(payload).encode()):
            assembler.add(chunk)
    for chunk in reader.end():
        assembler.add(chunk)
    return assembler.finish().message


def sent(message, origin=HERE):
    request = ModelRequest(messages=(Message.user("?"), message))
    body = chat_body(request, origin=origin, by_openai=False, options={})
    return next(entry for entry in body["messages"] if entry["role"] == "assistant")


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_call_goes_back_with_the_reasoning_that_led_to_it(field):
    message = read({field: "I look "}, {field: "it up."}, {"tool_calls": [CALL]})
    assert sent(message)[field] == "I look it up."
    assert message.content[0] == ReasoningPart("I look it up.", native={"field": field})


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_plain_reasoning_goes_nowhere_else(field):
    answer = read({field: "Hm."}, {"content": "Three."}, reason="stop")
    assert sent(answer) == {"role": "assistant", "content": "Three."}
    call = read({field: "Hm."}, {"tool_calls": [CALL]})
    assert field not in sent(call, Origin("openai-chat@elsewhere.example.com", "thinker"))


def test_a_servers_details_go_back_whole_and_in_order():
    first = {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1"}
    secret = {"type": "reasoning.encrypted", "index": 1, "id": "r", "data": "c2VjcmV0"}
    message = read(
        {"reasoning": "I ", "reasoning_details": [{**first, "text": "I "}]},
        {"reasoning": "look.", "reasoning_details": [{**first, "text": "look."}]},
        {"reasoning_details": [{**first, "text": "", "signature": "c2ln"}]},
        {"content": "Let me see."},
        {"reasoning_details": [secret], "tool_calls": [CALL]},
    )
    back = sent(message)
    assert back["reasoning_details"] == [{**first, "text": "I look.", "signature": "c2ln"}, secret]
    assert back["content"] == message.text == "Let me see."
    assert [part.text for part in message.content if isinstance(part, ReasoningPart)] == ["I look.", ""]
    assert "reasoning" not in back


def test_details_that_stand_alone_are_read_as_text():
    message = read({"reasoning_details": [{"type": "reasoning.summary", "summary": "Hm."}]}, {"content": "a"})
    assert message.content[0].text == "Hm."


def test_an_encrypted_detail_behind_a_text_does_not_become_part_of_it():
    secret = {"type": "reasoning.encrypted", "data": "c2VjcmV0"}
    message = read({"content": "Three."}, {"reasoning_details": [secret]}, reason="stop")
    assert message.content == (
        TextPart("Three."), ReasoningPart("", native={"reasoning_details": [secret]})
    )  # fmt: skip
    assert sent(message)["reasoning_details"] == [secret]


def test_thinking_among_the_pieces_of_the_content_goes_back_among_them():
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]
    message = read({"content": thinking}, {"content": [{"type": "text", "text": "Three."}]}, reason="stop")
    assert sent(message)["content"] == [*thinking, {"type": "text", "text": "Three."}]
