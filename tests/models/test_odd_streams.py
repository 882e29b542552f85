"""Streams out of the ordinary: what was said is heard whole, once, or there is an error."""

import json

import pytest

from atto.models import Assembler, ModelRequest, ToolSpec
from atto.models.anthropic_request import messages_body
from atto.models.anthropic_stream import MessagesReader
from atto.models.chat_request import chat_body
from atto.models.chat_stream import ChatReader
from atto.models.failures import Failures
from atto.models.gemini_request import gemini_body
from atto.models.responses_request import responses_body
from atto.models.responses_stream import ResponsesReader
from atto.models.usage_counts import usage_of
from atto.protocol.errors import InvalidAgent, ModelError
from atto.protocol.messages import Message, Origin, ReasoningPart, Usage


def read(reader, *payloads):
    assembler = Assembler()
    for payload in payloads:
        for chunk in reader.read(json.dumps(payload).encode()):
            assembler.add(chunk)
    for chunk in reader.end():
        assembler.add(chunk)
    return assembler.finish()


def item(kind="function_call", **fields):
    return {"type": kind, "id": "i1", "call_id": "c1", "name": "f", "arguments": '{"n":1}', **fields}


def said(text, **fields):
    content = [{"type": "output_text", "text": text}]
    return {"type": "message", "id": "m1", "role": "assistant", "content": content, **fields}


def added(of, index=0):
    return {"type": "response.output_item.added", "output_index": index, "item": of}


def done(of, index=0):
    return {"type": "response.output_item.done", "output_index": index, "item": of}


def piece(kind, delta, **fields):
    return {"type": f"response.{kind}.delta", "delta": delta, "output_index": 0, **fields}


COMPLETED = {"type": "response.completed", "response": {"status": "completed"}}
ARGUMENTS = "function_call_arguments"


@pytest.mark.parametrize(
    "events",
    [
        [added(item(arguments="")), piece(ARGUMENTS, '{"n":1}'), done(item()), piece(ARGUMENTS, "}")],
        [added(item(arguments="")), added(item(arguments="")), piece(ARGUMENTS, '{"n":1}'), done(item())],
        [piece(ARGUMENTS, '{"n":1}'), done(item())],
        [added(item(arguments="")), done(item()), done(item())],
        [added(item(arguments="")), piece(ARGUMENTS, '{"n"'), done(item())],  # the end has the rest
        [added(item(arguments=""))],  # the whole response has it
    ],
    ids=["piece after the end", "second start", "no start", "second end", "lost piece", "no end"],
)
def test_one_call_stays_one_call(events):
    whole = {"type": "response.completed", "response": {"status": "completed", "output": [item()]}}
    (call,) = read(ResponsesReader(Failures("m")), *events, whole).message.tool_calls
    assert (call.id, call.name, call.arguments, call.malformed) == ("c1", "f", {"n": 1}, None)


def test_items_without_an_index_are_told_apart_by_their_ids():
    one, two = item(id="i1", call_id="c1"), item(id="i2", call_id="c2", arguments='{"n":2}')
    events = [
        {"type": "response.output_item.added", "item": {**one, "arguments": ""}},
        {"type": "response.output_item.added", "item": {**two, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "item_id": "i2", "delta": '{"n":2}'},
        {"type": "response.function_call_arguments.delta", "item_id": "i1", "delta": '{"n":1}'},
        {"type": "response.output_item.done", "item": two},
        {"type": "response.output_item.done", "item": one},
    ]
    calls = read(ResponsesReader(Failures("m")), *events, COMPLETED).message.tool_calls
    assert [(call.id, call.arguments) for call in calls] == [("c1", {"n": 1}), ("c2", {"n": 2})]


def test_another_item_at_the_same_place_is_another_item():
    one, two = item(id="i1", call_id="c1"), item(id="i2", call_id="c2", arguments='{"n":2}')
    events = [added(one), done(one), added({**two, "arguments": ""}), piece(ARGUMENTS, '{"n":2}'), done(two)]
    calls = read(ResponsesReader(Failures("m")), *events, COMPLETED).message.tool_calls
    assert [(call.id, call.arguments) for call in calls] == [("c1", {"n": 1}), ("c2", {"n": 2})]


@pytest.mark.parametrize(
    ("late", "text"),
    [("four", "twenty four"), (" more", "twenty four more")],
    ids=["said before", "new"],
)
def test_text_after_an_items_end_is_not_lost_nor_said_twice(late, text):
    events = [piece("output_text", "twenty four"), done(said("twenty four")), piece("output_text", late)]
    assert read(ResponsesReader(Failures("m")), *events, COMPLETED).message.text == text


def test_a_pieces_call_that_ended_too_early_is_an_error():
    events = [piece(ARGUMENTS, '{"n"'), done(item(arguments='{"n"')), piece(ARGUMENTS, ":1}")]
    with pytest.raises(ModelError, match="after its end"):
        read(ResponsesReader(Failures("m")), *events, COMPLETED)


def test_a_whole_response_says_what_was_not_streamed():
    reasoning = {"type": "reasoning", "id": "r", "content": [{"type": "reasoning_text", "text": "Hm."}]}
    whole = {"status": "completed", "output": [reasoning, said("Hello"), item()]}
    for events in ([{"type": "response.completed", "response": whole}], [{"object": "response", **whole}]):
        message = read(ResponsesReader(Failures("m")), *events).message
        assert [part.text for part in message.content if isinstance(part, ReasoningPart)] == ["Hm."]
        assert (message.text, len(message.tool_calls)) == ("Hello", 1)


def test_a_refusal_is_told_apart():
    refused = {"type": "message", "id": "m", "content": [{"type": "refusal", "refusal": "No."}]}
    for events in ([piece("refusal", "No."), done(refused)], [done(refused)]):
        assembled = read(ResponsesReader(Failures("m")), *events, COMPLETED)
        assert (assembled.message.text, assembled.finish) == ("No.", "refusal")
    chunk = {"choices": [{"delta": {"refusal": "No."}, "finish_reason": "stop"}]}
    assembled = read(ChatReader(Failures("m")), chunk)
    assert (assembled.message.text, assembled.finish) == ("No.", "refusal")


def choice(delta, reason=None, **fields):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason, **fields}]}


@pytest.mark.parametrize(
    "chunks",
    [
        [choice({"content": word}, "stop") for word in ("one ", "two ", "three")],
        [choice({"content": "one two "}), choice({"content": "three"}, "eos")],
        [choice({"content": "one two three"}), choice({}, "stop", message={"content": "one two three"})],
        [choice({}, "stop", message={"content": "one two three"})],
        [{"choices": [{"index": 0, "text": word}]} for word in ("one ", "two three")] + [choice({}, "stop")],
        [choice({"content": "one two three"}, "stop"), choice({}, "stop")],
    ],
    ids=["finish on each", "other word", "message repeats", "message alone", "text", "two finishes"],
)
def test_all_of_a_text_is_heard_once(chunks):
    assembled = read(ChatReader(Failures("m")), *chunks)
    assert (assembled.message.text, assembled.finish) == ("one two three", "stop")


def test_a_call_of_before_there_were_tools_is_a_call():
    chunks = [
        choice({"function_call": {"name": "f", "arguments": '{"n"'}}),
        choice({"function_call": {"arguments": ":1}"}}, "function_call"),
    ]
    assembled = read(ChatReader(Failures("m")), *chunks)
    assert [call.arguments for call in assembled.message.tool_calls] == [{"n": 1}]
    assert assembled.finish == "tool_calls"


async def test_a_stream_that_breaks_after_a_finish_that_meant_nothing_is_cut(server, model, ask):
    from .chat_server import CUT, sse

    server.reply(sse(choice({"content": "one "}, "stop"), choice({"content": "two "}, "stop")), CUT)
    with pytest.raises(ModelError):
        await ask(model)


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ({"prompt_tokens": 9, "cached_tokens": 4}, Usage(9, cache_read_tokens=4)),
        ({"prompt_tokens": 9, "num_cached_tokens": 4}, Usage(9, cache_read_tokens=4)),
        ({"prompt_tokens": 9, "prompt_cache_hit_tokens": 4}, Usage(9, cache_read_tokens=4)),
        ({"input_tokens": 9, "output_tokens": 2}, Usage(9, 2)),
        ({"prompt_tokens": 9, "cached_tokens": 0, "prompt_tokens_details": {"cached_tokens": 4}},
         Usage(9, cache_read_tokens=4)),
        ({"prompt_tokens": 9, "cache_creation_tokens": 5, "cache_read_tokens": 4}, Usage(9, 0, 4, 5)),
        ({"completion_tokens": 9, "reasoning_tokens": 7}, Usage(0, 9, reasoning_tokens=7)),
        ({"prompt_tokens": "9", "completion_tokens": 2.0}, Usage(9, 2)),
        ({"prompt_tokens": -1, "completion_tokens": "many", "x": {}}, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None), (None, None), ([], None), ("9", None),
    ],
)  # fmt: skip
def test_tokens_by_many_names(counts, usage):
    assert usage_of(counts) == usage


def test_empty_counts_do_not_void_those_before():
    chunks = [
        {**choice({"content": "a"}, "stop"), "usage": {"prompt_tokens": 9}},
        {"choices": [], "usage": {"prompt_tokens": 0}},
    ]
    assert read(ChatReader(Failures("m")), *chunks).usage == Usage(9)
    groq = {"choices": [], "x_groq": {"usage": {"prompt_tokens": 9}}}
    assert read(ChatReader(Failures("m")), choice({"content": "a"}, "stop"), groq).usage == Usage(9)


def test_deltas_of_a_new_kind_stay_in_the_block_that_goes_back():
    start = {"type": "compaction", "content": "so ", "notes": [1]}
    message = read(
        MessagesReader(Failures("m")),
        {"type": "content_block_start", "index": 0, "content_block": start},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "compaction_delta", "content": "far"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "x_delta", "notes": [2], "seal": "s"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    ).message
    assert message.content[0].native == {
        "type": "compaction",
        "content": "so far",
        "notes": [1, 2],
        "seal": "s",
    }


def test_blocks_after_the_reason_are_heard():
    def text(index, text):
        yield {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": text}}
        yield {"type": "content_block_stop", "index": index}

    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    events = [*text(0, "one "), end, *text(1, "two"), end, {"type": "message_stop"}]
    assert read(MessagesReader(Failures("m")), *events).message.text == "one two"


HI = (Message.user("hi"),)
BODIES = {
    "chat": lambda request: chat_body(request, origin=Origin("p", "m"), by_openai=True, options={}),
    "responses": lambda request: responses_body(request, origin=Origin("p", "m"), by_openai=True, options={}),
    "messages": lambda request: messages_body(request, origin=Origin("p", "m"), max_tokens=1, options={}),
    "gemini": lambda request: gemini_body(request, origin=Origin("p", "m"), options={}),
}


@pytest.mark.parametrize("api", BODIES)
def test_a_providers_tools_come_beside_the_agents(api):
    spec = ToolSpec("stock", "", {"type": "object", "properties": {}})
    search = {"type": "web_search"}
    request = ModelRequest(messages=HI, tools=(spec,), options={"tools": [search]})
    tools = BODIES[api](request)["tools"]
    assert "stock" in json.dumps(tools[0])
    assert tools[1] == search
    taken = BODIES[api](ModelRequest(messages=HI, tools=(spec,), options={"tools": None}))
    assert "tools" not in taken


@pytest.mark.parametrize(
    "options",
    [
        {"messages": []}, {"model": "other"}, {"input": "x"}, {"contents": []}, {"system": "x"},
        {"n": 2}, {"generationConfig": {"candidateCount": 3}}, {"background": True},
    ],
)  # fmt: skip
async def test_options_that_would_replace_the_agents_words_are_refused(model, ask, options):
    from atto.models import Anthropic, Gemini, OpenAIChat, OpenAIResponses

    with pytest.raises(ModelError, match="the option"):
        await ask(model, ModelRequest(messages=HI, options=options))
    for make in (OpenAIChat, OpenAIResponses, Anthropic, Gemini):
        with pytest.raises(InvalidAgent, match="the option"):
            make("m", api_key="k" * 9, options=options)


async def test_two_tools_of_one_name_are_refused(model, ask):
    spec = ToolSpec("stock", "", {"type": "object", "properties": {}})
    twin = {"type": "function", "function": {"name": "stock"}}
    with pytest.raises(ModelError, match="two tools are named 'stock'"):
        await ask(model, ModelRequest(messages=HI, tools=(spec,), options={"tools": [twin]}))


@pytest.mark.parametrize("size", [1, 64, 65, 128])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_cache_key_has_no_more_than_64_characters(api, size):
    keys = {
        BODIES[api](ModelRequest(messages=HI, cache_key=last.rjust(size, "s")))["prompt_cache_key"]
        for last in "ab"
    }
    assert len(keys) == 2
    assert all(len(key) <= 64 for key in keys)
