"""Committed messages, as people read them in a terminal."""

from collections.abc import Iterator

from atto.protocol.messages import (
    AnyPart,
    InputPart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from atto_workers.cli.transcript import shortened
from atto_workers.terminal import shown_text


def told(message: Message) -> Iterator[str]:
    """One line for each part, or several for text that has them; the role comes first."""
    for part in message.content:
        yield shown_text(f"{message.role}: {_part(part)}")


def _part(part: AnyPart) -> str:
    match part:
        case TextPart():
            return part.text
        case ReasoningPart():
            return f"({part.text or 'reasoning that is not shown'})"
        case ToolCallPart():
            return f"-> {part.name}({shortened(part.malformed or part.arguments)})"
        case ToolResultPart():
            content = part.content if isinstance(part.content, str) else ", ".join(map(_input, part.content))
            return f"<- {part.name}{' failed' if part.is_error else ''}: {shortened(content)}"
        case _:
            return _input(part)


def _input(part: InputPart) -> str:
    if isinstance(part, TextPart):
        return part.text
    where = part.url if part.data is None else f"{len(part.data)} bytes"
    return f"[{part.media_type or 'media'}: {shortened(where)}]"
