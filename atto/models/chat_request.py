"""A model request in the words of the Chat Completions API."""

import re
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from msgspec.structs import replace

from atto.models.base import ModelRequest
from atto.models.chat_format import response_format, tool
from atto.models.chat_manners import Manners, manners_of
from atto.models.chat_reasoning import DETAILS, as_piece, is_in_content, returned
from atto.models.history import as_text, describe, is_own, plain, repaired, short_id
from atto.models.openai_parts import arguments_text, cache_key, data_url, file_text, is_text, spec_name
from atto.models.options import with_tools
from atto.models.schemas.asking import asked
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

_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
_OWN_ID = re.compile(r"[!-~]{1,40}")
_NINE = re.compile(r"[a-zA-Z0-9]{9}")
_INTERRUPTED = "(interrupted)"
_AUDIO = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}


def chat_body(
    request: ModelRequest, *, origin: Origin, by_openai: bool, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of the request. `options` and the request's own, in this order, replace what is built here,
    except for `tools`, which are added; an option that is None takes the field away, for servers that refuse
    it. The answer is always streamed.

    `by_openai`: OpenAI's own API, which has newer fields than those that speak like it.
    """
    answer_format, is_asked = response_format(request, origin, by_openai=by_openai)
    if is_asked:
        request = replace(request, instruction=asked(request.instruction, request.output_schema or {}))
    body: dict[str, Any] = {
        "model": origin.model,
        "messages": list(_messages(request, origin)),
        "tools": [tool(spec, by_openai=by_openai) for spec in request.tools] or None,
        "temperature": request.temperature,
        "max_completion_tokens" if by_openai else "max_tokens": request.max_tokens,
        "stop": list(request.stop) or None,
        "response_format": answer_format,
        "prompt_cache_key": cache_key(request.cache_key) if by_openai else None,
        "stream_options": {"include_usage": True},
    }
    for given in (options, request.options):
        for name, value in given.items():
            body[name] = with_tools(body.get(name), value) if name == "tools" else value
    body["stream"] = True
    return {name: value for name, value in body.items() if value is not None}


def _messages(request: ModelRequest, origin: Origin) -> Iterator[dict[str, Any]]:
    if request.instruction:
        yield {"role": "system", "content": request.instruction}
    manners = manners_of(origin)
    ids: dict[str, str] = {}
    unanswered = False  # results, by the assistant
    for message in repaired(request.messages):
        match message.role:
            case "user":
                if manners.answers_results and unanswered:
                    yield {"role": "assistant", "content": _INTERRUPTED}
                yield {"role": "user", "content": _content(message.content, manners)}
                unanswered = False
            case "assistant":
                ids = _ids(message, origin, manners)
                for written in _assistant(message, origin, manners, ids):
                    yield written
                    unanswered = False
            case "tool":
                for part in message.content:
                    yield _result(part, ids)
                unanswered = True


def _ids(message: Message, origin: Origin, manners: Manners) -> dict[str, str]:
    """The ids under which a message's calls are sent: odd ones only to the provider that made them."""
    own = message.origin is not None and message.origin.provider == origin.provider
    fits = (_NINE if manners.nine else _OWN_ID if own else _ID).fullmatch
    return {call.id: call.id if fits(call.id) else short_id(call.id) for call in message.tool_calls}


def _content(parts: tuple[AnyPart, ...], manners: Manners) -> str | list[dict[str, Any]]:
    """A user's content: a plain string wherever it can be, since not every server takes lists."""
    if not manners.takes_media:
        return as_text(parts)
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


def _assistant(
    message: Message, origin: Origin, manners: Manners, ids: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    """A message that says nothing is none."""
    text = "".join(map(plain, message.content))
    calls = message.tool_calls
    if not (text or calls):
        return
    own = is_own(message, origin)
    written: dict[str, Any] = {"role": "assistant", "content": text or None}
    if own:
        written.update(_thought(message, always=manners.thinks_aloud))
    if calls:
        written["tool_calls"] = [_call(part, ids[part.id], own=own) for part in calls]
    if manners.thinks_aloud:
        written["reasoning_content"] = written.get("reasoning_content") or _reason_for(calls)
    yield written


def _thought(message: Message, *, always: bool) -> dict[str, Any]:
    """The reasoning, where it came: servers need it with the calls to which it led, and what is signed or
    stood among the pieces of the content always. Elsewhere it would only cost tokens.
    """
    fields = returned(message.content)
    if any(map(is_in_content, message.content)):
        pieces = (as_piece(part) if is_in_content(part) else _said(part) for part in message.content)
        fields["content"] = [piece for piece in pieces if piece is not None]
    if always or message.tool_calls:
        return fields
    return {name: value for name, value in fields.items() if name in {DETAILS, "content"}}


def _said(part: AnyPart) -> dict[str, Any] | None:
    text = plain(part)
    return _text(text) if text else None


def _reason_for(calls: Sequence[ToolCallPart]) -> str:
    """In the place of reasoning that another model did, or that was lost: nothing would be refused. It is not
    the same everywhere, or the model would take to repeating it.
    """
    names = " and ".join(spec_name(call.name) for call in calls)
    return f"I call {names}." if names else "I answer."


def _call(part: ToolCallPart, call_id: str, *, own: bool) -> dict[str, Any]:
    function = {"name": spec_name(part.name), "arguments": arguments_text(part)}
    call = {"id": call_id, "type": "function", "function": function}
    if own and isinstance(part.native, dict):
        return {**cast("dict[str, Any]", part.native), **call}
    return call


def _result(part: AnyPart, ids: Mapping[str, str]) -> dict[str, Any]:
    """The API takes text only: media in a result are named, not shown."""
    if not isinstance(part, ToolResultPart):
        raise TypeError(f"a message of tool results holds a {type(part).__name__}")
    return {"role": "tool", "tool_call_id": ids[part.call_id], "content": as_text(part.content)}
