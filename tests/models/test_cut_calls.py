"""A call that broke off never runs, whichever adapter read it, and whole ones do."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.models import Assembler, FinishChunk, TextChunk, ToolCallChunk
from atto.models.anthropic_stream import MessagesReader
from atto.models.chat_stream import ChatReader
from atto.models.failures import Failures
from atto.models.gemini_stream import GeminiReader
from atto.models.responses_stream import ResponsesReader

_CUT = ["length", "content_filter", "incomplete", "something_new"]
_arguments = st.dictionaries(st.text(max_size=3), st.integers() | st.text(max_size=3), min_size=1, max_size=3)


def calls(reader, *payloads):
    assembler = Assembler()
    for payload in payloads:
        for chunk in reader.read(json.dumps(payload).encode()):
            assembler.add(chunk)
    for chunk in reader.end():
        assembler.add(chunk)
    return assembler.finish().message.tool_calls


@given(arguments=_arguments, cut=st.data(), finish=st.sampled_from(_CUT))
def test_no_part_of_the_arguments_is_taken_for_all_of_them(arguments, cut, finish):
    text = json.dumps(arguments)
    end = cut.draw(st.integers(0, len(text) - 1))
    assembler = Assembler()
    for chunk in (TextChunk("I do"), ToolCallChunk(0, "a", "f", text[:end]), FinishChunk(finish)):
        assembler.add(chunk)
    (call,) = assembler.finish().message.tool_calls
    assert (call.malformed, call.arguments) == (text[:end], {})


@pytest.mark.parametrize("finish", _CUT)
@pytest.mark.parametrize("text", ["", "{}", " { } ", "\n"])
def test_nothing_is_not_taken_for_no_arguments_where_the_answer_was_cut(finish, text):
    assembler = Assembler()
    assembler.add(ToolCallChunk(0, "a", "f", text))
    assembler.add(FinishChunk(finish))
    assert assembler.finish().message.tool_calls[0].malformed is not None


@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
def test_a_call_without_arguments_is_whole_where_the_answer_is(finish):
    assembler = Assembler()
    assembler.add(ToolCallChunk(0, "a", "f"))
    assembler.add(FinishChunk(finish))
    assert assembler.finish().message.tool_calls[0].malformed is None


def test_a_whole_call_before_the_cut_runs():
    assembler = Assembler()
    for chunk in (ToolCallChunk(0, "a", "f", '{"n":1}'), ToolCallChunk(1, "b", "f"), FinishChunk("length")):
        assembler.add(chunk)
    whole, cut = assembler.finish().message.tool_calls
    assert (whole.arguments, whole.malformed, cut.malformed) == ({"n": 1}, None, "")


def test_calls_of_a_filtered_answer_do_not_run():
    assembler = Assembler()
    assembler.add(ToolCallChunk(0, "a", "f", '{"n":1}'))
    assembler.add(FinishChunk("content_filter"))
    assert assembler.finish().message.tool_calls[0].malformed == '{"n":1}'


def chat(arguments, reason):
    piece = {"index": 0, "id": "a", "function": {"name": "f", "arguments": arguments}}
    yield {"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]}
    yield {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def old_chat(arguments, reason):
    piece = {"name": "f", "arguments": arguments}
    yield {"choices": [{"index": 0, "delta": {"function_call": piece}, "finish_reason": reason}]}


def responses(arguments, reason):
    item = {"type": "function_call", "id": "i", "call_id": "a", "name": "f", "status": "incomplete"}
    yield {"type": "response.output_item.added", "output_index": 0, "item": {**item, "arguments": ""}}
    if arguments:
        yield {"type": "response.function_call_arguments.delta", "output_index": 0, "delta": arguments}
    yield {"type": "response.output_item.done", "output_index": 0, "item": {**item, "arguments": arguments}}
    response = {"status": "incomplete", "incomplete_details": {"reason": reason}}
    yield {"type": "response.incomplete", "response": response}


def messages(arguments, reason):
    block = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    if arguments:
        delta = {"type": "input_json_delta", "partial_json": arguments}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 1}}


def gemini(arguments, reason):
    call = {"name": "f", "args": json.loads(arguments or "{}")}
    yield {"candidates": [{"content": {"parts": [{"functionCall": call}]}, "finishReason": reason}]}


@pytest.mark.parametrize(
    ("reader", "stream", "reason", "texts"),
    [
        (ChatReader, chat, "length", ["", "{}", '{"n"']),
        (ChatReader, chat, "content_filter", ["", '{"n"', '{"n":1}']),
        (ChatReader, chat, "max_tokens", ["", "{}"]),
        (ChatReader, old_chat, "length", ["", '{"n"']),
        (ResponsesReader, responses, "max_output_tokens", ["", "{}", '{"n"']),
        (ResponsesReader, responses, "content_filter", ["", '{"n":1}']),
        (MessagesReader, messages, "max_tokens", ["", "{}", '{"n"']),
        (MessagesReader, messages, "model_context_window_exceeded", [""]),
        (MessagesReader, messages, "refusal", ["", '{"n":1}']),
        (GeminiReader, gemini, "MAX_TOKENS", [""]),
        (GeminiReader, gemini, "SAFETY", ["", '{"n":1}']),
    ],
)
def test_each_adapter_says_that_a_call_was_cut(reader, stream, reason, texts):
    for text in texts:
        (call,) = calls(reader(Failures("m")), *stream(text, reason))
        assert call.malformed is not None, text


def test_a_finish_that_comes_late_still_tells_that_a_call_was_cut():
    reader = ChatReader(Failures("m"))
    early = {"choices": [{"index": 0, "delta": {"content": "I do"}, "finish_reason": "stop"}]}
    (call,) = calls(reader, early, *chat("", "length"))
    assert call.malformed is not None
