"""How committed messages are shown."""

from atto.protocol.messages import (
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from atto_workers.cli.history import told


def test_each_part_has_a_line_that_says_whose_it_is():
    image = ImagePart(data=b"abc", media_type="image/png")
    call = ToolCallPart(id="c", name="look", arguments={"at": "x" * 300})
    result = ToolResultPart(call_id="c", name="look", content=(TextPart("seen"), image), is_error=True)
    messages = (
        Message.user((TextPart("hi"), ImagePart(url="https://example.org/a.png"))),
        Message("assistant", (ReasoningPart(), TextPart("I look\x1b[2J"), call)),
        Message("tool", (result,)),
    )
    lines = [line for message in messages for line in told(message)]
    assert lines[:4] == [
        "user: hi",
        "user: [media: https://example.org/a.png]",
        "assistant: (reasoning that is not shown)",
        "assistant: I look\\x1b[2J",
    ]
    assert lines[4].startswith("assistant: -> look({'at': 'xxx")
    assert lines[4].endswith("…)")
    assert lines[5] == "tool: <- look failed: seen, [image/png: 3 bytes]"


def test_arguments_that_were_no_json_object_are_shown_as_they_came():
    message = Message("assistant", (ToolCallPart(id="c", name="look", malformed='{"at": '),))
    assert list(told(message)) == ['assistant: -> look({"at": )']
