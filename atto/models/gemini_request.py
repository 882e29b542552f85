"""A model request in the words of Gemini's `generateContent`."""

import mimetypes
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from atto.models.base import ModelRequest, ToolSpec
from atto.models.history import as_text, is_own, repaired
from atto.models.openai_parts import same_account
from atto.models.options import with_tools
from atto.models.schemas.asking import asked
from atto.models.schemas.dialects import GEMINI
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

_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_.:-]")
_BEGINS = re.compile(r"[A-Za-z_]")
_DATA_URL = re.compile(r"data:(?P<media_type>[^;,]*)[^,]*;base64,(?P<data>.*)", re.DOTALL)

_BEFORE_3 = re.compile(r"(?:.*/)?gemini-[12]\b")

# Gemini 3 refuses a step whose first call has no signature, as no call has that another model made; for these
# Google documents a signature to send instead (https://ai.google.dev/gemini-api/docs/thought-signatures).
# The models before it ask for no signature, and nothing says that they know this one.
_UNSIGNED = "skip_thought_signature_validator"


def gemini_body(request: ModelRequest, *, origin: Origin, options: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the request.

    `options` and the request's own, in this order, are fields of the body (`generationConfig`,
    `safetySettings`, …). An object is merged, field by field, with what is built here; `tools` come in
    addition to the agent's; anything else replaces. None takes a field away.
    """
    output, is_asked = _output(request, origin.model)
    instruction = asked(request.instruction, request.output_schema or {}) if is_asked else request.instruction
    body: dict[str, Any] = {
        "systemInstruction": _system(instruction),
        "contents": _signed(_joined(_contents(request, origin)), origin.model),
        "tools": _tools(request.tools),
        "generationConfig": {
            "temperature": request.temperature,
            "maxOutputTokens": request.max_tokens,
            "stopSequences": list(request.stop) or None,
            **output,
        },
    }
    for name, value in (*options.items(), *request.options.items()):
        body[name] = _merged(name, body.get(name), value)
    written = {name: _without_nulls(value) for name, value in body.items()}
    return {name: value for name, value in written.items() if name == "contents" or value not in (None, {})}


def _output(request: ModelRequest, model: str) -> tuple[dict[str, Any], bool]:
    """Fields of the `generationConfig`, and whether the schema must be asked for: before Gemini 3 there is no
    JSON beside tools.
    """
    schema = request.output_schema
    if schema is None:
        return {}, False
    if request.tools and _BEFORE_3.match(model):
        return {}, True
    written = rewritten(schema, GEMINI)
    return {"responseMimeType": "application/json", "responseJsonSchema": written}, written is None


def _system(instruction: str) -> dict[str, Any] | None:
    return {"parts": [_text(instruction)]} if instruction else None


def _tools(specs: tuple[ToolSpec, ...]) -> list[dict[str, Any]] | None:
    declared = [
        {"name": spec.name, "description": spec.description, "parametersJsonSchema": spec.parameters}
        for spec in specs
    ]
    return [{"functionDeclarations": declared}] if declared else None


def _merged(name: str, built: Any, option: Any) -> Any:
    if isinstance(built, dict) and isinstance(option, dict):
        return {**cast("dict[str, Any]", built), **cast("dict[str, Any]", option)}
    if name == "tools":
        return with_tools(built, option)
    return option


def _without_nulls(value: Any) -> Any:
    """Of an object's own fields only: further down, null may be part of a JSON Schema."""
    if not isinstance(value, dict):
        return value
    return {name: field for name, field in cast("dict[str, Any]", value).items() if field is not None}


def _contents(request: ModelRequest, origin: Origin) -> Iterator[dict[str, Any]]:
    """The API refuses a content without parts: what would be one is left out."""
    provider_ids: dict[str, str] = {}
    for message in repaired(request.messages):
        match message.role:
            case "user":
                role, parts = "user", list(_user_parts(message.content))
            case "assistant":
                own = is_own(message, origin)
                role, parts = "model", _own_parts(message) if own else _foreign_parts(message, origin)
                provider_ids = _provider_ids(message) if own else {}
            case "tool":
                role, parts = "user", _results(message, provider_ids, origin.model)
        if parts:
            yield {"role": role, "parts": parts}


def _joined(contents: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    """Answers that follow one another are one: the API takes calls behind the user or a result only."""
    joined: list[dict[str, Any]] = []
    for content in contents:
        if joined and content["role"] == joined[-1]["role"] == "model":
            joined[-1]["parts"] = [*joined[-1]["parts"], *content["parts"]]
        else:
            joined.append(content)
    return joined


def _signed(contents: list[dict[str, Any]], model: str) -> list[dict[str, Any]]:
    """The first call of each answer has a signature, or what stands for one."""
    if _BEFORE_3.match(model) is None:
        for content in contents:
            parts: list[dict[str, Any]] = content["parts"]
            first = next((at for at, part in enumerate(parts) if "functionCall" in part), None)
            if first is not None and not parts[first].get("thoughtSignature"):
                parts[first] = {**parts[first], "thoughtSignature": _UNSIGNED}
    return contents


def _user_parts(content: tuple[AnyPart, ...]) -> Iterator[dict[str, Any]]:
    for part in content:
        match part:
            case TextPart(text=text):
                if text:
                    yield _text(text)
            case ImagePart() | FilePart():
                yield _text(_readable(part)) if _is_text(part) else _media(part)
            case _:
                pass


def _text(text: str) -> dict[str, Any]:
    return {"text": text}


def _is_text(part: AnyPart) -> bool:
    """Text goes as text, with its name: the API takes few of its media types inline."""
    if not isinstance(part, FilePart) or part.data is None:
        return False
    media_type = part.media_type or ""
    return media_type.startswith("text/") or media_type == "application/json"


def _readable(part: ImagePart | FilePart) -> str:
    name = part.name if isinstance(part, FilePart) else None
    return f"{name or 'file'}:\n{(part.data or b'').decode('utf-8', 'replace')}"


def _media(part: ImagePart | FilePart) -> dict[str, Any]:
    if part.data is not None:
        return _blob(b64encode(part.data).decode(), part.media_type)
    url = part.url or ""
    if found := _DATA_URL.fullmatch(url):
        return _blob(found["data"], part.media_type or found["media_type"])
    media_type = part.media_type or mimetypes.guess_type(urlsplit(url).path)[0]
    # without a type the API takes only the URIs of its own file store, which knows the type
    return {"fileData": {"fileUri": url, **({"mimeType": media_type} if media_type else {})}}


def _blob(data: str, media_type: str | None) -> dict[str, Any]:
    return {"inlineData": {"mimeType": media_type or "application/octet-stream", "data": data}}


def _own_parts(message: Message) -> list[dict[str, Any]]:
    """What this provider said, as it said it (see `gemini_stream` for what is kept)."""
    return [written for part in message.content if (written := _own_part(part)) is not None]


def _own_part(part: AnyPart) -> dict[str, Any] | None:
    if isinstance(part, ToolCallPart):
        return _own_call(part)
    if isinstance(part.native, dict):
        return cast("dict[str, Any]", part.native)
    match part:
        case TextPart(text=text):
            return _text(text) if text else None
        case ReasoningPart(text=text):
            return {"text": text, "thought": True} if text else None
        case _:
            return None


def _own_call(part: ToolCallPart) -> dict[str, Any]:
    native = _native_call(part)
    if native is None:
        return _call(part)
    if not part.arguments and part.malformed is None:
        return cast("dict[str, Any]", part.native)
    return {**part.native, "functionCall": {**native, "args": _arguments(part)}}


def _native_call(part: ToolCallPart) -> dict[str, Any] | None:
    if isinstance(part.native, dict):
        call = cast("dict[str, Any]", part.native).get("functionCall")
        if isinstance(call, dict):
            return cast("dict[str, Any]", call)
    return None


def _provider_ids(message: Message) -> dict[str, str]:
    """The ids under which the provider knows its calls: where it gave none, a result must not name one."""
    natives = {part.id: _native_call(part) for part in message.tool_calls}
    return {call_id: str(call["id"]) for call_id, call in natives.items() if call and call.get("id")}


def _foreign_parts(message: Message, origin: Origin) -> list[dict[str, Any]]:
    """What another model said: reasoning is left out, and so are opaque parts of other providers; calls go
    without their ids.
    """
    parts: list[dict[str, Any]] = []
    same = same_account(message.origin, origin)
    for part in message.content:
        if isinstance(part, TextPart) and part.text:
            parts.append(_text(part.text))
        elif same and isinstance(part, ReasoningPart) and (kept := _without_signature(part.native)):
            parts.append(kept)
        elif isinstance(part, ToolCallPart):
            parts.append(_call(part))
    return parts


def _without_signature(native: Any) -> dict[str, Any] | None:
    """A part that is neither text nor thought, such as code that ran: all models of the API read it."""
    if not isinstance(native, dict):
        return None
    fields = cast("dict[str, Any]", native)
    kept = {name: value for name, value in fields.items() if name != "thoughtSignature"}
    return kept if kept and not kept.keys() & {"text", "thought"} else None


def _call(part: ToolCallPart) -> dict[str, Any]:
    return {"functionCall": {"name": _name(part.name), "args": _arguments(part)}}


def _arguments(part: ToolCallPart) -> dict[str, Any]:
    return part.arguments if part.malformed is None else {"malformed": part.malformed}


def _name(name: str) -> str:
    """A model may have called something that is no name; the API refuses to hear of it."""
    written = _NOT_A_NAME.sub("_", name)
    return (written if _BEGINS.match(written) else f"_{written}")[:64]


def _results(message: Message, provider_ids: Mapping[str, str], model: str) -> list[dict[str, Any]]:
    """Media of a result lie within it where the model takes them there, else behind all results."""
    results: list[dict[str, Any]] = []
    behind: list[dict[str, Any]] = []
    for part in message.content:
        if not isinstance(part, ToolResultPart):
            raise TypeError(f"a message of tool results holds a {type(part).__name__}")
        text, media = _sorted(part.content)
        response: dict[str, Any] = {"name": _name(part.name)}
        if part.call_id in provider_ids:
            response["id"] = provider_ids[part.call_id]
        response["response"] = {"error" if part.is_error else "output": text}
        if media and _BEFORE_3.match(model):
            behind += media
        elif media:
            response["parts"] = media
        results.append({"functionResponse": response})
    return [*results, *behind]


def _sorted(content: str | tuple[AnyPart, ...]) -> tuple[str, list[dict[str, Any]]]:
    """A result's text, and its media."""
    if isinstance(content, str):
        return content, []
    texts: list[str] = []
    media: list[dict[str, Any]] = []
    for part in content:
        if isinstance(part, ImagePart | FilePart) and not _is_text(part):
            media.append(_media(part))
        else:
            texts.append(_readable(part) if isinstance(part, FilePart) else as_text((part,)))
    return "\n".join(filter(None, texts)), media
