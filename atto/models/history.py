"""What every adapter does to a history before it sends it.

A history may have been written by several models. What one of them wrote natively goes back to that very
model only (`is_own`): signatures and encrypted reasoning are bound to it, and other models refuse them, even
those of the same account. Ids of calls are made unique over the whole history (`repaired`), and such as any
provider takes (`short_id`).
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256

from msgspec.structs import replace

from atto.protocol.messages import (
    AnyPart,
    FilePart,
    ImagePart,
    Message,
    Origin,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

ORPHANED = "error: this call was interrupted and has no result"
"""What a model reads as the result of a call that has none."""


def repaired(messages: Sequence[Message]) -> list[Message]:
    """The history as providers demand it: each message with tool calls is followed by one message with
    exactly their results, in the order of the calls; no two calls have the same id.

    A call without a result gets an error result; a result without a call is left out. An id that was used
    before is replaced, always by the same one, so that a cached prompt stays what it was.
    """
    whole: list[Message] = []
    calls: tuple[ToolCallPart, ...] = ()
    results: dict[str, ToolResultPart] = {}
    taken: set[str] = set()
    for message in messages:
        if message.role == "tool":
            for part in message.content:
                if isinstance(part, ToolResultPart):
                    results.setdefault(part.call_id, part)
            continue
        _answer(calls, results, whole, taken)
        whole.append(message)
        calls, results = message.tool_calls, {}
    _answer(calls, results, whole, taken)
    return whole


def _answer(
    calls: tuple[ToolCallPart, ...],
    results: dict[str, ToolResultPart],
    whole: list[Message],
    taken: set[str],
) -> None:
    """Adds the results of the calls, which are those of the last message of `whole`."""
    if not calls:
        return
    found = [_result_of(call, results) for call in calls]
    ids = [_unique(call.id, taken) for call in calls]
    if any(call.id != call_id for call, call_id in zip(calls, ids, strict=True)):
        fresh = iter(ids)
        message = whole.pop()
        content = (
            replace(part, id=next(fresh)) if isinstance(part, ToolCallPart) else part
            for part in message.content
        )
        whole.append(replace(message, content=tuple(content)))
        found = [replace(result, call_id=call_id) for result, call_id in zip(found, ids, strict=True)]
    whole.append(Message("tool", tuple(found)))


def _result_of(call: ToolCallPart, results: dict[str, ToolResultPart]) -> ToolResultPart:
    """Under the name by which the call was made."""
    result = results.get(call.id)
    if result is None:
        return ToolResultPart(call.id, call.name, ORPHANED, is_error=True)
    return result if result.name == call.name else replace(result, name=call.name)


def _unique(call_id: str, taken: set[str]) -> str:
    found, times = call_id, 1
    while not found or found in taken:
        found, times = short_id(f"{call_id}/{times}"), times + 1
    taken.add(found)
    return found


_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def short_id(text: str) -> str:
    """Nine letters and digits, made of `text`: an id that every provider takes. Mistral takes no other."""
    number = int.from_bytes(sha256(text.encode("utf-8", "replace")).digest()[:8])
    return "".join(_LETTERS[number // len(_LETTERS) ** place % len(_LETTERS)] for place in range(9))


def is_own(message: Message, origin: Origin) -> bool:
    """Whether the very model that is asked wrote the message: only that takes back what it signed."""
    return message.origin == origin


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
