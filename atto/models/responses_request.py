"""A model request in the words of the Responses API."""

import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, cast

from atto.models.base import ModelRequest, ToolSpec
from atto.models.chat_format import BEFORE_SCHEMAS
from atto.models.history import as_text, describe, is_own, plain, repaired
from atto.models.openai_parts import arguments_text, cache_key, data_url, file_text, is_text, spec_name
from atto.models.options import with_tools
from atto.models.schemas.asking import asked
from atto.models.schemas.dialects import OPENAI, OPENAI_TOOLS
from atto.models.schemas.rewriting import rewritten
from atto.protocol.messages import (
    AnyPart,
    FilePart,
    ImagePart,
    Message,
    Origin,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

_ENCRYPTED = "reasoning.encrypted_content"
_LONGEST_ID = 64

# OpenAI's models that do not reason refuse to be asked for encrypted reasoning; under any other name may be
# one that does, and that loses the thread without.
_PLAIN = re.compile(r"(?:ft:)?(?:gpt-3|gpt-4|chatgpt-)|.*-chat(?:-latest)?$")


def responses_body(
    request: ModelRequest, *, origin: Origin, by_openai: bool, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of the request. `options` and the request's own, in this order, replace what is built here
    (`tools`, `text` and `include` are added to); an option that is None takes the field away. The answer is
    always streamed. Nothing is stored at the provider unless the option `store` says so.
    """
    schema, instruction = request.output_schema, request.instruction
    if schema is not None and by_openai and BEFORE_SCHEMAS.match(origin.model):
        schema, instruction = None, asked(instruction, schema)
    body: dict[str, Any] = {
        "model": origin.model,
        "input": list(_items(request.messages, origin)),
        "instructions": instruction or None,
        "tools": [_tool(spec, by_openai=by_openai) for spec in request.tools] or None,
        "temperature": request.temperature,
        "max_output_tokens": request.max_tokens,
        "text": _text_format(schema, by_openai=by_openai),
        "prompt_cache_key": cache_key(request.cache_key) if by_openai else None,
        "store": False,
        "include": [] if _PLAIN.match(origin.model) else [_ENCRYPTED],
    }
    for given in (options, request.options):
        body.update({name: _merged(name, body.get(name), value) for name, value in given.items()})
    body["stream"] = True
    body["include"] = body.get("include") or None
    return {name: value for name, value in body.items() if value is not None}


def _merged(name: str, built: Any, given: Any) -> Any:
    if name == "tools":
        return with_tools(built, given)
    if name == "text" and isinstance(built, dict) and isinstance(given, dict):
        return {**cast("dict[str, Any]", built), **cast("dict[str, Any]", given)}
    if name == "include" and isinstance(built, list) and isinstance(given, list | tuple):
        return list(dict.fromkeys([*cast("list[Any]", built), *cast("Iterable[Any]", given)]))
    return given


def _items(messages: Iterable[Message], origin: Origin) -> Iterator[dict[str, Any]]:
    for message in repaired(tuple(messages)):
        match message.role:
            case "user":
                yield {"role": "user", "content": _content(message.content)}
            case "assistant" if _is_own(message, origin):
                yield from map(_own, filter(_is_sent, message.content))
            case "assistant":
                yield from _projected(message.content)
            case "tool":
                yield from map(_result, message.content)


def _is_own(message: Message, origin: Origin) -> bool:
    """Whether the message's items go back as they came.

    The provider would look up a reasoning item without its encrypted content, and it has stored nothing;
    without it, the items that it led to are refused by their ids. So such a message is told in plain words.
    """
    return is_own(message, origin) and not any(_is_a_mere_name(part.native) for part in message.content)


def _is_a_mere_name(native: Any) -> bool:
    if not isinstance(native, dict):
        return False
    item = cast("dict[str, Any]", native)
    return item.get("type") == "reasoning" and not item.get("encrypted_content")


def _is_sent(part: AnyPart) -> bool:
    return not isinstance(part, ReasoningPart) or part.native is not None


def _own(part: AnyPart) -> dict[str, Any]:
    if isinstance(part, ToolCallPart):
        call = _call(part)
        # an id may have been made up or made unique, and its result goes by it
        if isinstance(part.native, dict) and part.malformed is None:
            return {**cast("dict[str, Any]", part.native), "call_id": call["call_id"]}
        return call
    if isinstance(part.native, dict):
        return cast("dict[str, Any]", part.native)
    return {"role": "assistant", "content": plain(part)}


def _projected(parts: Iterable[AnyPart]) -> Iterator[dict[str, Any]]:
    """What others than this provider and account said: text and calls; reasoning is left out."""
    for part in parts:
        if isinstance(part, ToolCallPart):
            yield _call(part)
        elif text := plain(part):
            yield {"role": "assistant", "content": text}


def _call(part: ToolCallPart) -> dict[str, Any]:
    return {
        "type": "function_call",
        "call_id": _call_id(part.id),
        "name": spec_name(part.name),
        "arguments": arguments_text(part),
    }


def _call_id(call_id: str) -> str:
    """The API refuses ids of more than 64 characters; others' may be longer."""
    if len(call_id) <= _LONGEST_ID:
        return call_id
    return f"call_{sha256(call_id.encode()).hexdigest()[:32]}"


def _result(part: AnyPart) -> dict[str, Any]:
    if not isinstance(part, ToolResultPart):
        raise TypeError(f"a message of tool results holds a {type(part).__name__}")
    output = part.content if isinstance(part.content, str) else _content(part.content)
    return {"type": "function_call_output", "call_id": _call_id(part.call_id), "output": output}


def _content(parts: tuple[AnyPart, ...]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, TextPart) for part in parts) and len(parts) <= 1:
        return as_text(parts)
    return [entry for part in parts if (entry := _part(part)) is not None]


def _part(part: AnyPart) -> dict[str, Any] | None:
    match part:
        case TextPart(text=text):
            return _text(text)
        case ImagePart(url=url, data=data, media_type=media_type):
            return {
                "type": "input_image",
                "image_url": url or data_url(data, media_type),
                "detail": "auto",
            }
        case FilePart():
            return _file(part)
        case _:
            return None


def _file(part: FilePart) -> dict[str, Any]:
    """Documents by URL or inline; text as text; the API takes no sound, which is named only."""
    if (part.media_type or "").startswith("audio/"):
        return _text(describe(part))
    if part.url is not None:
        return {"type": "input_file", "file_url": part.url}
    if is_text(part):
        return _text(file_text(part))
    return {
        "type": "input_file",
        "filename": part.name or "file",
        "file_data": data_url(part.data, part.media_type),
    }


def _text(text: str) -> dict[str, Any]:
    return {"type": "input_text", "text": text}


def _tool(spec: ToolSpec, *, by_openai: bool) -> dict[str, Any]:
    """Strict where its schema can be said so without a loss; `strict` is the API's default."""
    strict = rewritten(spec.parameters, OPENAI_TOOLS) if by_openai else None
    return {
        "type": "function",
        "name": spec.name,
        "description": spec.description,
        "parameters": spec.parameters if strict is None else strict,
        "strict": strict is not None,
    }


def _text_format(schema: dict[str, Any] | None, *, by_openai: bool) -> dict[str, Any] | None:
    if schema is None:
        return None
    name = spec_name(str(schema.get("title") or "answer"))
    strict = rewritten(schema, OPENAI) if by_openai else None
    written = {"schema": schema if strict is None else strict, "strict": strict is not None}
    return {"format": {"type": "json_schema", "name": name, **written}}
