"""A model request in the words of the Messages API."""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any, cast

from atto.models.base import ModelRequest, ToolSpec
from atto.models.history import as_text, describe, is_own, plain, repaired
from atto.models.openai_parts import is_text, same_account, spec_name
from atto.models.options import with_tools
from atto.models.schemas.asking import asked
from atto.models.schemas.dialects import ANTHROPIC
from atto.models.schemas.rewriting import rewritten
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

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_PDF = "application/pdf"
_BEFORE_SCHEMAS = re.compile(r"(?:.*[/.])?claude-(?:[23]|instant|(?:sonnet|opus)-4(?:-0)?(?:-?$|[-@]\d{8}))")
_THOUGHT = {"thinking", "redacted_thinking"}

_Block = dict[str, Any]


def messages_body(
    request: ModelRequest, *, origin: Origin, max_tokens: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The body of the request. `options` and the request's own, in this order, replace what is built here
    (`tools` and `output_config` are added to); an option that is None takes the field away. The answer is
    always streamed.
    """
    output, instruction = _output(request.output_schema, origin.model), request.instruction
    if output is None and request.output_schema is not None:
        instruction = asked(instruction, request.output_schema)
    body: dict[str, Any] = {
        "model": origin.model,
        "max_tokens": request.max_tokens or max_tokens,
        "system": instruction if instruction.strip() else None,
        "messages": _messages(request.messages, origin),
        "tools": [_tool(spec) for spec in request.tools] or None,
        "stop_sequences": list(request.stop) or None,
        "temperature": request.temperature,
        "output_config": output,
        # the API moves this breakpoint along with the conversation
        "cache_control": {"type": "ephemeral"} if request.cache_key else None,
    }
    for given in (options, request.options):
        body.update({name: _merged(name, body.get(name), value) for name, value in given.items()})
    if _thinks_by_budget(body.get("thinking")) and _goes_on_without_thinking(body["messages"]):
        body["thinking"] = {"type": "disabled"}
    body["stream"] = True
    return {name: value for name, value in body.items() if value is not None}


def _thinks_by_budget(thinking: Any) -> bool:
    return isinstance(thinking, dict) and cast("_Block", thinking).get("type") == "enabled"


def _goes_on_without_thinking(turns: Any) -> bool:
    """Whether the last step of a tool loop was another model's: with a budget of thinking, the API refuses
    to go on from an answer that does not begin with thinking. Adaptive thinking does not mind.
    """
    if not isinstance(turns, list) or len(cast("list[Any]", turns)) < 2:
        return False
    said, told = (cast("list[_Block]", turn["content"]) for turn in cast("list[Any]", turns)[-2:])
    is_result = any(block.get("type") == "tool_result" for block in told)
    return is_result and said[0].get("type") not in _THOUGHT


def going_on(body: _Block, blocks: list[_Block], container: str | None) -> _Block:
    """The request that goes on where a turn was paused, which is with all that it said so far."""
    messages = cast("list[_Block]", body["messages"])
    if messages[-1]["role"] == "assistant":
        messages = messages[:-1]
    further = {**body, "messages": [*messages, {"role": "assistant", "content": list(blocks)}]}
    return {**further, "container": container} if container and "container" not in body else further


def _merged(name: str, built: Any, given: Any) -> Any:
    if name == "tools":
        return with_tools(built, given)
    if name == "output_config" and isinstance(built, dict) and isinstance(given, dict):
        return {**cast("_Block", built), **cast("_Block", given)}
    return given


def _messages(messages: Iterable[Message], origin: Origin) -> list[dict[str, Any]]:
    """Turns of both sides in alternation: the results of a step, and what the user said next, are one."""
    turns: list[dict[str, Any]] = []
    for message in repaired(tuple(messages)):
        role = "assistant" if message.role == "assistant" else "user"
        blocks = list(_blocks(message, origin))
        if not blocks:
            continue
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Message, origin: Origin) -> Iterator[_Block]:
    if message.role == "tool":
        yield from map(_result, message.content)
    elif message.role == "user":
        yield from _input(message.content)
    else:
        same, own = same_account(message.origin, origin), is_own(message, origin)
        for part in message.content:
            yield from _said(part, own=own or (same and not _is_thought(part.native)))


def _is_thought(native: Any) -> bool:
    """Whether a block is signed by the model that thought it, and is taken by no other."""
    return isinstance(native, dict) and cast("_Block", native).get("type") in _THOUGHT


def _said(part: AnyPart, *, own: bool) -> Iterator[_Block]:
    """A part of an answer: as the provider gave it, or in plain words where it is another's."""
    native = cast("_Block", part.native) if own and isinstance(part.native, dict) else None
    if isinstance(part, ToolCallPart):
        arguments = part.arguments if part.malformed is None else {"malformed": part.malformed}
        call = {"id": _call_id(part.id), "name": spec_name(part.name), "input": arguments}
        yield {"type": "tool_use", **(native or {}), **call}
    elif native is not None:
        if native.get("type") != "text" or str(native.get("text", "")).strip():
            yield native
    elif (text := plain(part)).strip():  # the API refuses text that is empty or white space
        yield _text(text)


def _input(parts: Iterable[AnyPart]) -> Iterator[_Block]:
    for part in parts:
        match part:
            case TextPart(text=text) if text.strip():
                yield _text(text)
            case ImagePart(url=url, data=data, media_type=media_type):
                yield {"type": "image", "source": _source(url, data, media_type)}
            case FilePart():
                yield _document(part)
            case _:
                pass


def _document(part: FilePart) -> _Block:
    """PDFs by URL or inline, and text; the API takes nothing else, which is named only."""
    titled = {"title": part.name} if part.name else {}
    if is_text(part):
        text = (part.data or b"").decode("utf-8", "replace")
        source = {"type": "text", "media_type": "text/plain", "data": text}
        return {"type": "document", "source": source, **titled} if text.strip() else _text(describe(part))
    if part.media_type == _PDF or (part.url is not None and part.media_type is None):
        return {"type": "document", "source": _source(part.url, part.data, _PDF), **titled}
    return _text(describe(part))


def _source(url: str | None, data: bytes | None, media_type: str | None) -> _Block:
    if url is not None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": media_type, "data": b64encode(data or b"").decode()}


def _result(part: AnyPart) -> _Block:
    if not isinstance(part, ToolResultPart):
        raise TypeError(f"a message of tool results holds a {type(part).__name__}")
    # the API refuses media in the result of a failed call
    told = as_text(part.content) if part.is_error else part.content
    content = told if isinstance(told, str) else list(_input(told))
    block: _Block = {"type": "tool_result", "tool_use_id": _call_id(part.call_id)}
    if content:
        block["content"] = content
    return {**block, "is_error": True} if part.is_error else block


def _call_id(call_id: str) -> str:
    """The API refuses ids of other characters; other providers' may have them."""
    return call_id if _ID.fullmatch(call_id) else f"call_{sha256(call_id.encode()).hexdigest()[:32]}"


def _text(text: str) -> _Block:
    return {"type": "text", "text": text}


def _tool(spec: ToolSpec) -> _Block:
    return {"name": spec.name, "description": spec.description, "input_schema": spec.parameters}


def _output(schema: dict[str, Any] | None, model: str) -> _Block | None:
    """None: the schema must be asked for, since the model cannot be held to it."""
    if schema is None or _BEFORE_SCHEMAS.match(model):
        return None
    written = rewritten(schema, ANTHROPIC)
    return None if written is None else {"format": {"type": "json_schema", "schema": written}}
