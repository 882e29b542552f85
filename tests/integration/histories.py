"""What must hold of every committed history."""

from collections.abc import Sequence

from atto.protocol.messages import Message, ToolResultPart


def check_history(messages: Sequence[Message], *, is_finished: bool = True) -> None:
    """Every tool call is answered, once, by the very next message; a turn begins with the user and, where all
    of them were `is_finished`, ends with an answer.
    """
    for message, after in zip(messages, [*messages, None][1:], strict=True):
        calls = [part.id for part in message.tool_calls]
        if calls:
            assert after is not None
            assert after.role == "tool"
            assert [part.call_id for part in after.content if isinstance(part, ToolResultPart)] == calls
        else:
            assert after is None or after.role != "tool"
        if is_finished and message.role == "user" and after is not None:
            assert after.role == "assistant"
    if messages:
        assert messages[0].role == "user"
    if messages and is_finished:
        assert messages[-1].role == "assistant"
        assert not messages[-1].tool_calls
