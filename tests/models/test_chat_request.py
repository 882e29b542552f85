import json

from atto.models import ModelRequest, ToolSpec
from atto.models.chat_request import chat_body
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

ORIGIN = Origin("openai-chat", "m", "acme")


def body(*messages, by_openai=True, options=None, **fields):
    request = ModelRequest(messages=messages, **fields)
    return chat_body(request, origin=ORIGIN, by_openai=by_openai, options=options or {})


def sent(*messages):
    return body(*messages)["messages"]


def test_the_smallest_request():
    assert body(Message.user("hi")) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_every_field():
    made = body(
        Message.user("hi"),
        instruction="Be brief.",
        tools=(ToolSpec("f", "does f", {"type": "object"}),),
        temperature=0.0,
        max_tokens=5,
        stop=("x",),
        output_schema={"title": "An answer!", "type": "object"},
        cache_key="k",
    )
    assert made["messages"][0] == {"role": "system", "content": "Be brief."}
    assert made["tools"] == [
        {
            "type": "function",
            "function": {"name": "f", "description": "does f", "parameters": {"type": "object"}},
        }
    ]
    assert (made["temperature"], made["max_completion_tokens"], made["stop"]) == (0.0, 5, ["x"])
    assert made["prompt_cache_key"] == "k"
    assert made["response_format"]["json_schema"]["name"] == "An_answer_"


def test_servers_that_speak_like_openai_get_the_older_fields():
    made = body(Message.user("hi"), by_openai=False, max_tokens=5, cache_key="k")
    assert made["max_tokens"] == 5
    assert "max_completion_tokens" not in made
    assert "prompt_cache_key" not in made


def test_options_replace_and_none_takes_away_but_the_answer_is_always_streamed():
    request = ModelRequest(
        messages=(), temperature=1.0, options={"seed": 2, "stream_options": None, "stream": False}
    )
    made = chat_body(request, origin=ORIGIN, by_openai=True, options={"seed": 1})
    assert made == {"model": "m", "messages": [], "temperature": 1.0, "seed": 2, "stream": True}


def test_every_part_a_user_can_send():
    message = Message.user(
        (
            TextPart("see"),
            ImagePart(url="https://x/y.png"),
            ImagePart(data=b"png", media_type="image/png"),
            FilePart(url="https://x/y.pdf", name="y"),
            FilePart(data=b"pdf", media_type="application/pdf", name="a.pdf"),
            FilePart(data="é".encode(), media_type="text/plain", name="a.txt"),
            FilePart(data=b"wav", media_type="audio/wav"),
        )
    )
    assert sent(message)[0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,cG5n"}},
        {"type": "text", "text": "[file, y, https://x/y.pdf]"},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,cGRm"}},
        {"type": "text", "text": "a.txt:\né"},
        {"type": "input_audio", "input_audio": {"data": "d2F2", "format": "wav"}},
    ]


def test_a_tool_round_trip():
    calls = Message("assistant", (ReasoningPart("hm"), TextPart("wait"), ToolCallPart("a", "f", {"x": 1})))
    result = ToolResultPart("a", "f", (TextPart("1"), ImagePart(url="https://x/y.png")))
    assert sent(calls, Message("tool", (result,))) == [
        {
            "role": "assistant",
            "content": "wait",
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "1\n[image, https://x/y.png]"},
    ]


def test_an_orphaned_call_is_answered_with_an_error():
    calls, result = sent(Message("assistant", (ToolCallPart("a", "f"),)))
    assert calls["content"] is None
    assert (result["tool_call_id"], result["content"][:6]) == ("a", "error:")


def test_a_malformed_call_is_sent_as_json_all_the_same():
    calls, _ = sent(Message("assistant", (ToolCallPart("a", "no name!", malformed="{oops"),)))
    function = calls["tool_calls"][0]["function"]
    assert function["name"] == "no_name_"
    assert json.loads(function["arguments"]) == {"malformed": "{oops"}


def test_native_goes_back_to_the_model_that_wrote_it_only():
    def native_sent(origin):
        part = ToolCallPart("a", "f", native={"extra_content": {"google": {"thought_signature": "s"}}})
        return "extra_content" in sent(Message("assistant", (part,), origin))[0]["tool_calls"][0]

    assert native_sent(Origin("openai-chat", "m", "acme"))
    assert not native_sent(Origin("openai-chat", "another-model", "acme"))
    assert not native_sent(Origin("openai-chat", "m", "another"))
    assert not native_sent(Origin("gemini", "m", "acme"))
    assert not native_sent(None)
