"""A model request in the words of the Chat Completions API."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, cast

from atto.models.base import ModelRequest, ToolSpec
from atto.models.history import as_text, describe, plain, repaired
from atto.models.openai_parts import arguments_text, data_url, file_text, is_text, same_account, spec_name
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

_AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


def chat_body(
    request: ModelRequest, *, origin: Origin, by_openai: bool, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of the request. `options` and the request's own, in this order, replace what is built here; an
    option that is None takes the field away, for servers that refuse it. The answer is always streamed.

    `by_openai`: OpenAI's own API, which has newer fields than those that speak like it.
    """
    body: dict[str, Any] = {
        "model": origin.model,
        "messages": list(_messages(request, origin)),
        "tools": [_tool(spec) for spec in request.tools] or None,
        "temperature": request.temperature,
        "max_completion_tokens" if by_openai else "max_tokens": request.max_tokens,
        "stop": list(request.stop) or None,
        "response_format": _response_format(request.output_schema),
        "prompt_cache_key": (request.cache_key or None) if by_openai else None,
        "stream_options": {"include_usage": True},
    }
    merged = {**body, **options, **request.options, "stream": True}
    return {name: value for name, value in merged.items() if value is not None}


def _messages(request: ModelRequest, origin: Origin) -> Iterator[dict[str, Any]]:
    if request.instruction:
        yield {"role": "system", "content": request.instruction}
    for message in repaired(request.messages):
        match message.role:
            case "user":
                yield {"role": "user", "content": _content(message.content)}
            case "assistant":
                yield _assistant(message, origin)
            case "tool":
                yield from map(_result, message.content)


def _content(parts: tuple[AnyPart, ...]) -> str | list[dict[str, Any]]:
    """A user's content: a plain string wherever it can be, since not every server takes lists."""
    if len(parts) <= 1 and all(isinstance(part, TextPart) for part in parts):
        return as_text(parts)
    return [entry for part in parts if (entry := _part(part)) is not None]


def _part(part: AnyPart) -> dict[str, Any] | None:
    match part:
        case TextPart(text=text):
            return _text(text)
        case ImagePart(url=url, data=data, media_type=media_type):
            return {"type": "image_url", "image_url": {"url": url or data_url(data, media_type)}}
        case FilePart():
            return _file(part)
        case _:
            return None


def _file(part: FilePart) -> dict[str, Any]:
    """The API takes documents and sound inline only, and text as text."""
    media_type = part.media_type or ""
    if part.data is None:
        return _text(describe(part))
    if media_type in _AUDIO:
        sound = {"data": b64encode(part.data).decode(), "format": _AUDIO[media_type]}
        return {"type": "input_audio", "input_audio": sound}
    if is_text(part):
        return _text(file_text(part))
    document = {"filename": part.name or "file", "file_data": data_url(part.data, media_type)}
    return {"type": "file", "file": document}


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _assistant(message: Message, origin: Origin) -> dict[str, Any]:
    """Reasoning is left out: the API has no place for it."""
    written: dict[str, Any] = {"role": "assistant", "content": "".join(map(plain, message.content))}
    if message.tool_calls:
        own = message.origin is not None and same_account(message.origin, origin)
        written["tool_calls"] = [_call(part, own=own) for part in message.tool_calls]
        written["content"] = written["content"] or None
    return written


def _call(part: ToolCallPart, *, own: bool) -> dict[str, Any]:
    function = {"name": spec_name(part.name), "arguments": arguments_text(part)}
    call = {"id": part.id, "type": "function", "function": function}
    if own and isinstance(part.native, dict):
        return {**cast("dict[str, Any]", part.native), **call}
    return call


def _result(part: AnyPart) -> dict[str, Any]:
    """The API takes text only: media in a result are named, not shown."""
    if not isinstance(part, ToolResultPart):
        raise TypeError(f"a message of tool results holds a {type(part).__name__}")
    return {"role": "tool", "tool_call_id": part.call_id, "content": as_text(part.content)}


def _tool(spec: ToolSpec) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    return {"type": "function", "function": function}


def _response_format(schema: dict[str, Any] | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    name = spec_name(str(schema.get("title") or "answer"))
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}
