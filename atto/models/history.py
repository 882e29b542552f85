"""What every adapter does to a history before it sends it."""

from collections.abc import Iterable, Sequence

from atto.protocol.messages import (
    AnyPart,
    FilePart,
    ImagePart,
    Message,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

ORPHANED = "error: this call was interrupted and has no result"
"""What a model reads as the result of a call that has none."""


def repaired(messages: Sequence[Message]) -> list[Message]:
    """The history as providers demand it: each message with tool calls is followed by one message with
    exactly their results, in the order of the calls.

    A call without a result gets an error result; a result without a call is left out.
    """
    whole: list[Message] = []
    calls: tuple[ToolCallPart, ...] = ()
    results: dict[str, ToolResultPart] = {}
    for message in messages:
        if message.role == "tool":
            for part in message.content:
                if isinstance(part, ToolResultPart):
                    results.setdefault(part.call_id, part)
            continue
        _answer(calls, results, whole)
        whole.append(message)
        calls, results = message.tool_calls, {}
    _answer(calls, results, whole)
    return whole


def _answer(calls: Iterable[ToolCallPart], results: dict[str, ToolResultPart], whole: list[Message]) -> None:
    content = tuple(
        results.get(call.id) or ToolResultPart(call.id, call.name, ORPHANED, is_error=True) for call in calls
    )
    if content:
        whole.append(Message("tool", content))


def as_text(content: str | Iterable[AnyPart]) -> str:
    """Content for a place that takes only text: one line or more a part, media named where they cannot be."""
    if isinstance(content, str):
        return content
    return "\n".join(filter(None, map(plain, content)))


def plain(part: AnyPart) -> str:
    """The text of a part that a reader sees: media are named, reasoning and calls are not shown."""
    match part:
        case TextPart(text=text):
            return text
        case ImagePart() | FilePart():
            return describe(part)
        case _:
            return ""


def describe(part: ImagePart | FilePart) -> str:
    """Names an image or a file that cannot be sent itself."""
    kind = "image" if isinstance(part, ImagePart) else "file"
    name = part.name if isinstance(part, FilePart) else None
    where = part.url or f"{len(part.data or b'')} bytes, not shown"
    return f"[{', '.join(filter(None, (kind, name, part.media_type, where)))}]"
