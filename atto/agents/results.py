"""What a tool returned, as what the model reads."""

from collections.abc import Sequence
from typing import Any, TypeGuard, cast

from atto.agents.plain import encode
from atto.protocol.errors import ToolFailed
from atto.protocol.messages import FilePart, ImagePart, InputPart, TextPart


def to_result(value: Any) -> str | tuple[InputPart, ...]:
    """Text as it is, None as no text, parts as parts, anything else as JSON.

    Text travels as UTF-8: a lone surrogate in it becomes `?`. Raises `ToolFailed` for what has no JSON form.
    """
    if value is None:
        return ""
    if isinstance(value, str):
        return str.__str__(value).encode(errors="replace").decode()
    try:
        text = encode(value).decode()
    except Exception as error:
        raise ToolFailed(
            f"the tool returned a {type(value).__name__} that has no JSON form: {error}"
        ) from error
    if _is_part(value):
        return (value,)
    return tuple(value) if _are_parts(value) else text


def _is_part(value: object) -> TypeGuard[InputPart]:
    return isinstance(value, TextPart | ImagePart | FilePart)


def _are_parts(value: object) -> TypeGuard[Sequence[InputPart]]:
    if not isinstance(value, list | tuple):
        return False
    parts = cast("Sequence[object]", value)
    return len(parts) > 0 and all(map(_is_part, parts))
