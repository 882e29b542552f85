"""Requests in the words of the Responses API."""

import json

import pytest

from atto.models import ModelRequest, ToolSpec
from atto.models.responses_request import responses_body
from atto.protocol.messages import (
    FilePart,
    ImagePart,
    Message,
    Origin,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

from .responses_payloads import function_call, message, reasoning

HERE = Origin("openai", "gpt-5", "acme")


def body(*messages, by_openai=True, options=None, **fields):
    request = ModelRequest(messages=messages or (Message.user("hi"),), **fields)
    return responses_body(request, origin=HERE, by_openai=by_openai, options=options or {})


def items(*messages):
    return body(*messages)["input"]


def test_every_field():
    schema = {"type": "object", "title": "My answer"}
    made = body(
        instruction="Be brief.",
        tools=(ToolSpec("f", "does", {"type": "object"}),),
        temperature=0.0,
        max_tokens=7,
        output_schema=schema,
        cache_key="k",
        options={"reasoning": {"effort": "low"}},
    )
    assert made == {
        "model": "gpt-5",
        "input": [{"role": "user", "content": "hi"}],
        "instructions": "Be brief.",
        "tools": [
            {
                "type": "function",
                "name": "f",
                "description": "does",
                "parameters": {"type": "object"},
                "strict": False,
            }
        ],
        "temperature": 0.0,
        "max_output_tokens": 7,
        "text": {"format": {"type": "json_schema", "name": "My_answer", "schema": schema, "strict": False}},
        "prompt_cache_key": "k",
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low"},
        "stream": True,
    }
    assert "prompt_cache_key" not in body(cache_key="k", by_openai=False)


def test_options_add_replace_and_take_away():
    made = body(
        output_schema={"type": "object"},
        temperature=1.0,
        options={"text": {"verbosity": "low"}, "include": ["x", "reasoning.encrypted_content"], "a": 1},
    )
    assert set(made["text"]) == {"format", "verbosity"}
    assert made["include"] == ["reasoning.encrypted_content", "x"]
    taken = responses_body(
        ModelRequest(messages=(Message.user("hi"),), options={"include": None, "a": 2, "stream": False}),
        origin=HERE,
        by_openai=True,
        options={"a": 1, "store": None},
    )
    assert (taken["a"], taken["stream"]) == (2, True)
    assert not {"include", "store"} & set(taken)


def test_media():
    parts = (
        TextPart("look"),
        ImagePart(url="https://x/y.png"),
        ImagePart(data=b"img", media_type="image/png"),
        FilePart(url="https://x/y.pdf"),
        FilePart(data=b"pdf", media_type="application/pdf", name="y.pdf"),
        FilePart(data=b"a,b", media_type="text/csv", name="t.csv"),
        FilePart(data=b"wav", media_type="audio/wav"),
    )
    content = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"},
        {"type": "input_image", "image_url": "data:image/png;base64,aW1n", "detail": "auto"},
        {"type": "input_file", "file_url": "https://x/y.pdf"},
        {"type": "input_file", "filename": "y.pdf", "file_data": "data:application/pdf;base64,cGRm"},
        {"type": "input_text", "text": "t.csv:\na,b"},
        {"type": "input_text", "text": "[file, audio/wav, 3 bytes, not shown]"},
    ]
    call = ToolCallPart("a", "f")
    _, _, result, user = items(
        Message.user("hi"),
        Message("assistant", (call,)),
        Message("tool", (ToolResultPart("a", "f", parts),)),
        Message.user(parts),
    )
    assert user == {"role": "user", "content": content}
    assert result == {"type": "function_call_output", "call_id": "a", "output": content}


OWN = (
    ReasoningPart("hm", native=reasoning("hm")),
    TextPart("a", native=message("a", phase="commentary")),
    ToolCallPart("a", "f", {"x": 1}, native=function_call("a", "f", '{ "x":1 }')),
)


def test_own_items_go_back_verbatim():
    sent = items(Message("assistant", OWN, HERE), Message("tool", (ToolResultPart("a", "f", "ok"),)))
    assert sent[:3] == [part.native for part in OWN]
    assert sent[3] == {"type": "function_call_output", "call_id": "a", "output": "ok"}


@pytest.mark.parametrize(
    "origin",
    [
        None,
        Origin("openai", "gpt-5"),
        Origin("openai@host", "gpt-5", "acme"),
        Origin("openai-chat", "m", "acme"),
    ],
)
def test_items_of_others_are_told_in_plain_words(origin):
    text, call, _ = items(Message("assistant", OWN, origin))
    assert text == {"role": "assistant", "content": "a"}
    assert call == {"type": "function_call", "call_id": "a", "name": "f", "arguments": '{"x":1}'}


def test_items_of_another_model_of_the_same_account_are_told_in_plain_words():
    sent = items(Message("assistant", OWN[:2], Origin("openai", "gpt-6", "acme")))
    assert sent == [{"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("gpt-5.2", True),
        ("o4-mini", True),
        ("mine", True),
        ("gpt-4.1", False),
        ("ft:gpt-4o-mini:x", False),
        ("gpt-5-chat-latest", False),
    ],
)
def test_encrypted_reasoning_is_asked_of_models_that_may_reason(model, asked):
    body = responses_body(
        ModelRequest(messages=(Message.user("hi"),)),
        origin=Origin("openai", model),
        by_openai=True,
        options={},
    )
    assert body.get("include") == (["reasoning.encrypted_content"] if asked else None)


@pytest.mark.parametrize("encrypted", [None, ""])
def test_a_message_whose_reasoning_is_not_encrypted_is_told_in_plain_words(encrypted):
    bare = ReasoningPart("hm", native=reasoning("hm", encrypted=encrypted))
    sent = items(Message("assistant", (bare, *OWN[1:]), HERE))
    assert [item.get("id") for item in sent] == [None, None, None]
    assert sent[0] == {"role": "assistant", "content": "a"}


def test_own_parts_without_native():
    parts = (ReasoningPart("hm"), TextPart("a"), ToolCallPart("x", "f"))
    text, call, _ = items(Message("assistant", parts, HERE))
    assert text == {"role": "assistant", "content": "a"}
    assert call["call_id"] == "x"


def test_a_call_goes_by_the_id_that_its_result_has():
    parts = (ToolCallPart("made-up", "f", native=function_call("twice", "f")),)
    call, result = items(Message("assistant", parts, HERE))
    assert (call["call_id"], call["id"], result["call_id"]) == ("made-up", "fc_twice", "made-up")


def test_malformed_arguments_are_sent_as_json_and_names_and_ids_are_fit_to_be_sent():
    long_id = "x" * 100
    native = function_call(long_id, "wea ther", "{oops")
    parts = (ToolCallPart(long_id, "wea ther", malformed="{oops", native=native),)
    call, result = items(Message("assistant", parts, HERE))
    assert json.loads(call["arguments"]) == {"malformed": "{oops"}
    assert call["name"] == "wea_ther"
    assert len(call["call_id"]) <= 64
    assert call["call_id"] == result["call_id"]
