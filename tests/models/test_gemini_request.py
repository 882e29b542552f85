from atto.models import ModelRequest, ToolSpec
from atto.models.gemini_request import gemini_body
from atto.models.history import ORPHANED
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

ORIGIN = Origin("gemini", "gemini-3-pro", "acme")
UNSIGNED = "skip_thought_signature_validator"


def body(*messages, origin=ORIGIN, options=None, **fields):
    return gemini_body(ModelRequest(messages=messages, **fields), origin=origin, options=options or {})


def sent(*messages, origin=ORIGIN):
    return body(*messages, origin=origin)["contents"]


def results(*content, is_error=False):
    call = Message("assistant", (ToolCallPart("a", "f"),))
    result = ToolResultPart(
        "a", "f", content if len(content) != 1 or not isinstance(content[0], str) else content[0], is_error
    )
    return sent(call, Message("tool", (result,)))[1]["parts"][0]["functionResponse"]


def test_the_smallest_request():
    assert body(Message.user("hi")) == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def test_every_field():
    schema = {"type": "object", "properties": {"a": {"const": None}}}
    made = body(
        Message.user("hi"),
        instruction="Be brief.",
        tools=(ToolSpec("f", "does f", schema),),
        temperature=0.0,
        max_tokens=5,
        stop=("x",),
        output_schema=schema,
        cache_key="k",
    )
    assert made["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    declared = {"name": "f", "description": "does f", "parametersJsonSchema": schema}
    assert made["tools"] == [{"functionDeclarations": [declared]}]
    assert made["generationConfig"] == {
        "temperature": 0.0,
        "maxOutputTokens": 5,
        "stopSequences": ["x"],
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object", "properties": {"a": {"type": "null"}}},
    }


def test_options_are_merged_added_or_taken_away():
    made = body(
        Message.user("hi"),
        temperature=1.0,
        max_tokens=5,
        tools=(ToolSpec("f", "", {"type": "object"}),),
        instruction="x",
        options={
            "generationConfig": {"topP": 0.5, "thinkingConfig": {"includeThoughts": True}},
            "safetySettings": [{"category": "c"}],
        }
        | {"tools": [{"googleSearch": {}}]},
    )
    assert made["generationConfig"] == {
        "temperature": 1.0,
        "maxOutputTokens": 5,
        "topP": 0.5,
        "thinkingConfig": {"includeThoughts": True},
    }
    assert [list(tool) for tool in made["tools"]] == [["functionDeclarations"], ["googleSearch"]]
    assert made["safetySettings"] == [{"category": "c"}]


def test_the_requests_options_come_after_the_models_and_none_takes_away():
    request = ModelRequest(
        messages=(),
        instruction="x",
        temperature=1.0,
        options={
            "generationConfig": {"seed": 2, "temperature": None, "responseJsonSchema": {"const": None}},
            "systemInstruction": None,
            "labels": {"team": "a", "none": None},
        },
    )
    made = gemini_body(
        request, origin=ORIGIN, options={"generationConfig": {"seed": 1, "topK": 3}, "toolConfig": None}
    )
    assert made == {
        "contents": [],
        "generationConfig": {"seed": 2, "topK": 3, "responseJsonSchema": {"const": None}},
        "labels": {"team": "a"},
    }


def test_every_part_a_user_can_send():
    message = Message.user(
        (
            TextPart("see"),
            TextPart(""),
            ImagePart(url="https://x/y.png?z"),
            ImagePart(url="data:image/gif;base64,Z2lm"),
            ImagePart(data=b"png", media_type="image/png"),
            FilePart(url="gs://x/y", media_type="video/mp4"),
            FilePart(url="https://generativelanguage.googleapis.com/v1beta/files/abc"),
            FilePart(data=b"pdf", media_type="application/pdf", name="a.pdf"),
            FilePart(data="é".encode(), media_type="text/plain", name="a.txt"),
            FilePart(data=b"wav", media_type="audio/wav"),
        )
    )
    assert sent(message)[0]["parts"] == [
        {"text": "see"},
        {"fileData": {"fileUri": "https://x/y.png?z", "mimeType": "image/png"}},
        {"inlineData": {"mimeType": "image/gif", "data": "Z2lm"}},
        {"inlineData": {"mimeType": "image/png", "data": "cG5n"}},
        {"fileData": {"fileUri": "gs://x/y", "mimeType": "video/mp4"}},
        {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
        {"inlineData": {"mimeType": "application/pdf", "data": "cGRm"}},
        {"text": "a.txt:\né"},
        {"inlineData": {"mimeType": "audio/wav", "data": "d2F2"}},
    ]


def test_the_results_of_a_step_are_one_content_in_the_order_of_the_calls():
    calls = Message("assistant", (ToolCallPart("a", "f", {"x": 1}), ToolCallPart("b", "g")))
    contents = sent(
        Message.user("hi"),
        calls,
        Message("tool", (ToolResultPart("b", "g", "2"),)),
        Message("tool", (ToolResultPart("a", "f", "1"), ToolResultPart("z", "f", "stray"))),
    )
    assert [content["role"] for content in contents] == ["user", "model", "user"]
    assert contents[2]["parts"] == [
        {"functionResponse": {"name": "f", "response": {"output": "1"}}},
        {"functionResponse": {"name": "g", "response": {"output": "2"}}},
    ]


def test_an_orphaned_call_is_answered_with_an_error():
    _, result = sent(Message("assistant", (ToolCallPart("a", "f"),)))
    assert result["parts"] == [{"functionResponse": {"name": "f", "response": {"error": ORPHANED}}}]


def test_results():
    assert results("1") == {"name": "f", "response": {"output": "1"}}
    assert results("no", is_error=True) == {"name": "f", "response": {"error": "no"}}
    image = ImagePart(data=b"png", media_type="image/png")
    notes = FilePart(data=b"n", media_type="text/plain", name="n.txt")
    assert results(TextPart("1"), image, FilePart(url="gs://x/y.pdf"), notes, TextPart("2")) == {
        "name": "f",
        "response": {"output": "1\nn.txt:\nn\n2"},
        "parts": [
            {"inlineData": {"mimeType": "image/png", "data": "cG5n"}},
            {"fileData": {"fileUri": "gs://x/y.pdf", "mimeType": "application/pdf"}},
        ],
    }


def test_media_in_results_lie_behind_them_for_models_that_do_not_take_them_inside():
    calls = Message("assistant", (ToolCallPart("a", "f"), ToolCallPart("b", "f")))
    image = ImagePart(data=b"png", media_type="image/png")
    results = Message("tool", (ToolResultPart("a", "f", (image,)), ToolResultPart("b", "f", "2")))
    parts = sent(calls, results, origin=Origin("gemini", "models/gemini-2.5-flash"))[1]["parts"]
    assert parts == [
        {"functionResponse": {"name": "f", "response": {"output": ""}}},
        {"functionResponse": {"name": "f", "response": {"output": "2"}}},
        {"inlineData": {"mimeType": "image/png", "data": "cG5n"}},
    ]


def test_what_another_model_said_is_projected():
    message = Message(
        "assistant",
        (
            ReasoningPart("hm", native={"x": 1}),
            TextPart("wait", native={"text": "wait", "thoughtSignature": "theirs"}),
            ToolCallPart("a", "no name!", {"x": 1}, native={"functionCall": {"id": "a"}}),
            ToolCallPart("b", "f", malformed="{oops"),
        ),
        Origin("vertex", "gemini-3-pro", "acme"),
    )
    model, result = sent(message)
    assert model["parts"] == [
        {"text": "wait"},
        {"functionCall": {"name": "no_name_", "args": {"x": 1}}, "thoughtSignature": UNSIGNED},
        {"functionCall": {"name": "f", "args": {"malformed": "{oops"}}},
    ]
    assert [list(part["functionResponse"]) for part in result["parts"]] == [["name", "response"]] * 2
    older = sent(message, origin=Origin("gemini", "gemini-2.5-flash"))[0]["parts"]
    assert [part for part in older if "thoughtSignature" in part] == []


def test_contents_without_parts_are_left_out():
    reasoning = Message("assistant", (ReasoningPart("hm"),), Origin("anthropic", "m"))
    assert sent(Message("assistant", ()), reasoning, Message.user("")) == []


def test_what_is_signed_goes_back_to_the_model_that_signed_it_only():
    part = {"text": "a", "thoughtSignature": "s"}

    def signed(origin):
        message = Message("assistant", (TextPart("a", native=part),), origin)
        return sent(message)[0]["parts"] == [part]

    assert signed(ORIGIN)
    assert not signed(Origin("gemini", "another-model", "acme"))
    assert not signed(Origin("gemini", "gemini-3-pro", "another"))
    assert not signed(Origin("gemini@proxy", "gemini-3-pro", "acme"))
    assert not signed(None)


def test_code_that_another_model_of_the_account_ran_is_told_without_its_signature():
    ran = {"executableCode": {"language": "PYTHON", "code": "1+1"}}
    content = (
        ReasoningPart("hm", native={"text": "hm", "thought": True, "thoughtSignature": "s"}),
        ReasoningPart("", native={**ran, "thoughtSignature": "s"}),
        TextPart("2", native={"text": "2", "thoughtSignature": "s"}),
    )
    message = Message("assistant", content, Origin("gemini", "another-model", "acme"))
    assert sent(message)[0]["parts"] == [ran, {"text": "2"}]


def test_an_own_call_keeps_its_signature_whatever_became_of_its_arguments():
    native = {"functionCall": {"name": "f", "id": "x"}, "thoughtSignature": "s"}
    message = Message("assistant", (ToolCallPart("x", "f", malformed="[1]", native=native),), ORIGIN)
    (part,) = sent(message)[0]["parts"]
    assert part == {
        "functionCall": {"name": "f", "id": "x", "args": {"malformed": "[1]"}},
        "thoughtSignature": "s",
    }
