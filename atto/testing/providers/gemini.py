"""What Google refuses at `generateContent`."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import cast

from atto.testing.model_dialect import Said
from atto.testing.providers.rule import Ask, Json, Rule, Violation, is_sealed, seal, sse
from atto.testing.providers.schemas import outside_gemini, walk

_API = "https://ai.google.dev/api/generate-content"
_SIGNATURES = "https://ai.google.dev/gemini-api/docs/thought-signatures"
_FUNCTIONS = "https://ai.google.dev/gemini-api/docs/function-calling"
_PROVIDER = "gemini"
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_UNSIGNED = {"skip_thought_signature_validator", "context_engineering_is_the_way_to_go"}
_DATA = {
    "text",
    "inlineData",
    "functionCall",
    "functionResponse",
    "fileData",
    "executableCode",
    "codeExecutionResult",
}
_BESIDE = {"thought", "thoughtSignature", "videoMetadata", "partMetadata"}
_FIELDS = {
    "contents",
    "tools",
    "toolConfig",
    "safetySettings",
    "systemInstruction",
    "generationConfig",
    "cachedContent",
    "labels",
    "model",
}
_MEDIA = {
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/heic",
    "image/heif",
    "application/pdf",
    "text/plain",
    "text/csv",
    "text/html",
    "text/xml",
    "text/markdown",
    "audio/wav",
    "audio/mp3",
    "audio/mpeg",
    "audio/aac",
    "audio/ogg",
    "audio/flac",
    "video/mp4",
    "video/mpeg",
    "video/quicktime",
    "video/webm",
}
_SCHEMA = {
    "type",
    "format",
    "title",
    "description",
    "nullable",
    "enum",
    "maxItems",
    "minItems",
    "properties",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "example",
    "anyOf",
    "propertyOrdering",
    "default",
    "items",
    "minimum",
    "maximum",
}


def error_body(violation: Violation) -> Json:
    """An error as Google words it."""
    return {"error": {"code": violation.status, "message": violation.message, "status": "INVALID_ARGUMENT"}}


def is_3(model: str) -> bool:
    """Whether the model is one of those that demand their signatures."""
    return re.search(r"gemini-(?:[3-9]|\d\d)", model) is not None


def thinks(model: str) -> bool:
    """Whether the model thinks at all."""
    return is_3(model) or "2.5" in model


def _contents(ask: Ask) -> list[tuple[str, list[Json]]]:
    """Role and parts, those of one role that follow one another as they are."""
    return [
        (str(content.get("role", "user")), cast("list[Json]", content.get("parts") or []))
        for content in ask.items("contents")
    ]


def _parts(ask: Ask) -> Iterator[tuple[str, Json]]:
    for at, (_, parts) in enumerate(_contents(ask)):
        for number, part in enumerate(parts):
            yield f"contents[{at}].parts[{number}]", part


def _calls(parts: list[Json]) -> list[Json]:
    return [cast("Json", part["functionCall"]) for part in parts if "functionCall" in part]


def _results(parts: list[Json]) -> list[Json]:
    return [cast("Json", part["functionResponse"]) for part in parts if "functionResponse" in part]


def _unknown(ask: Ask) -> Iterator[Violation]:
    for name in sorted(ask.body.keys() - _FIELDS):
        yield Violation(f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.')
    for where, part in _parts(ask):
        for name in sorted(part.keys() - _DATA - _BESIDE):
            yield Violation(
                f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field."
            )


def _no_contents(ask: Ask) -> Iterator[Violation]:
    if not _contents(ask):
        yield Violation("* GenerateContentRequest.contents: contents is not specified\n")


def _no_parts(ask: Ask) -> Iterator[Violation]:
    for at, (_, parts) in enumerate(_contents(ask)):
        if not parts:
            yield Violation(
                f"* GenerateContentRequest.contents[{at}].parts: contents.parts must not be empty.\n"
            )


def _no_data(ask: Ask) -> Iterator[Violation]:
    for where, part in _parts(ask):
        said = part.keys() & _DATA
        if not said or (part.get("text") == "" and not part.get("thoughtSignature")):
            yield Violation(
                f"* GenerateContentRequest.{where}.data: required oneof field 'data' must have one "
                "initialized field\n"
            )


def _roles(ask: Ask) -> Iterator[Violation]:
    for role, _ in _contents(ask):
        if role not in {"user", "model"}:
            yield Violation("Please use a valid role: user, model.")


def _last(ask: Ask) -> Iterator[Violation]:
    contents = _contents(ask)
    if contents and contents[-1][0] == "model":
        yield Violation("Please ensure that multiturn requests ends with a user role or a function response.")


def _calls_follow(ask: Ask) -> Iterator[Violation]:
    before = ""
    for role, parts in _contents(ask):
        if _calls(parts) and before != "user":
            yield Violation(
                "Please ensure that function call turn comes immediately after a user turn or after a "
                "function response turn."
            )
        before = role


def _as_many(ask: Ask) -> Iterator[Violation]:
    contents = [*_contents(ask), ("user", cast("list[Json]", []))]
    for (_, parts), (_, after) in pairwise(contents):
        calls = _calls(parts)
        if calls and len(calls) != len(_results(after)):
            yield Violation(
                "Please ensure that the number of function response parts is equal to the number of function "
                "call parts of the function call turn."
            )


def _results_follow(ask: Ask) -> Iterator[Violation]:
    contents = [("user", cast("list[Json]", [])), *_contents(ask)]
    for (_, before), (_, parts) in pairwise(contents):
        if _results(parts) and not _calls(before):
            yield Violation(
                "Please ensure that function response turn comes immediately after a function call turn."
            )


def _same_names(ask: Ask) -> Iterator[Violation]:
    contents = [("user", cast("list[Json]", [])), *_contents(ask)]
    for (_, before), (_, parts) in pairwise(contents):
        made = sorted((str(call.get("name")), str(call.get("id", ""))) for call in _calls(before))
        told = sorted((str(result.get("name")), str(result.get("id", ""))) for result in _results(parts))
        if made and len(told) == len(made) and made != told:
            yield Violation("Function response does not match the function call by name or id.")


def _names(ask: Ask) -> Iterator[Violation]:
    for at, name in enumerate(_all_names(ask)):
        if not _NAME.fullmatch(name):
            yield Violation(
                f"* GenerateContentRequest.tools[0].function_declarations[{at}].name: Invalid function name. "
                "Must start with a letter or an underscore. Must be alphameric (a-z, A-Z, 0-9), underscores "
                "(_), dots (.), colons (:), or dashes (-), with a maximum length of 128.\n"
            )


def _all_names(ask: Ask) -> Iterator[str]:
    yield from (str(declared.get("name", "")) for declared in _declared(ask))
    for _, parts in _contents(ask):
        yield from (str(named.get("name", "")) for named in [*_calls(parts), *_results(parts)])


def _declared(ask: Ask) -> list[Json]:
    return [
        cast("Json", declared)
        for tool in ask.items("tools")
        for declared in cast("Json", tool).get("functionDeclarations", ())
    ]


def _declared_twice(ask: Ask) -> Iterator[Violation]:
    named = [declared.get("name") for declared in _declared(ask)]
    for name in named:
        if named.count(name) > 1:
            yield Violation(f"Duplicate function declaration found: {name}")


def _unsigned(ask: Ask) -> Iterator[Violation]:
    """The first call of each step of the turn that goes on has a signature."""
    if not is_3(ask.model):
        return
    contents = _contents(ask)
    for at, (_, parts) in enumerate(contents):
        calling = [part for part in parts if "functionCall" in part]
        if at > _began(contents) and calling and not calling[0].get("thoughtSignature"):
            name = calling[0]["functionCall"].get("name")
            yield Violation(
                "Function call is missing a thought_signature in functionCall parts. This is required for "
                "tools to work correctly, and missing thought_signature may lead to degraded model "
                f"performance. Additional data, function call `default_api:{name}` , position "
                f"{at + 1}. Please refer to {_SIGNATURES} for more details."
            )


def _began(contents: list[tuple[str, list[Json]]]) -> int:
    """Where the turn that goes on began: the last content of the user's that is no result."""
    told = [at for at, (role, parts) in enumerate(contents) if role == "user" and not _results(parts)]
    return told[-1] if told else -1


def _signatures(ask: Ask) -> Iterator[Violation]:
    for _, part in _parts(ask):
        token = part.get("thoughtSignature")
        if token is None or token in _UNSIGNED:
            continue
        if not is_sealed(token, _PROVIDER, ask, _signed(part)):
            yield Violation("Thought signature is not valid.")


def _signed(part: Json) -> object:
    call = cast("Json", part.get("functionCall") or {})
    return [call.get("name"), cast("Json", call.get("args") or {})] if call else part.get("text")


def _stops(ask: Ask) -> Iterator[Violation]:
    if len(ask.items("generationConfig", "stopSequences")) > 5:
        yield Violation(
            "* GenerateContentRequest.generation_config.stop_sequences: the number of stop sequences must "
            "be at most 5.\n"
        )


def _temperature(ask: Ask) -> Iterator[Violation]:
    given = cast("Json", ask.body.get("generationConfig") or {}).get("temperature", 1)
    if not 0 <= given <= 2:
        yield Violation(
            f"* GenerateContentRequest.generation_config.temperature: temperature must be in the range [0.0, "
            f"2.0], got {given}.\n"
        )


def _json_with_tools(ask: Ask) -> Iterator[Violation]:
    config = cast("Json", ask.body.get("generationConfig") or {})
    if config.get("responseMimeType") == "application/json" and _declared(ask) and not is_3(ask.model):
        yield Violation("Function calling with a response mime type: 'application/json' is unsupported")


def _media(ask: Ask) -> Iterator[Violation]:
    blobs = [part.get("inlineData") for _, part in _parts(ask)]
    for _, parts in _contents(ask):
        for result in _results(parts):
            blobs += [part.get("inlineData") for part in cast("list[Json]", result.get("parts") or [])]
    for blob in blobs:
        if blob and cast("Json", blob).get("mimeType") not in _MEDIA:
            yield Violation(f"Unsupported MIME type: {cast('Json', blob).get('mimeType')}")


def _media_in_results(ask: Ask) -> Iterator[Violation]:
    for _, parts in _contents(ask):
        if any(result.get("parts") for result in _results(parts)) and not is_3(ask.model):
            yield Violation("Multimodal function responses are not supported by this model.")


def _schemas(ask: Ask) -> Iterator[Violation]:
    """`parameters` is a subset of OpenAPI's; `parametersJsonSchema` is JSON Schema."""
    for at, declared in enumerate(_declared(ask)):
        for _, found in walk(declared.get("parameters")):
            for name in sorted(found.keys() - _SCHEMA):
                yield Violation(
                    f'Invalid JSON payload received. Unknown name "{name}" at '
                    f"'tools[0].function_declarations[{at}].parameters': Cannot find field."
                )


def _both_schemas(ask: Ask) -> Iterator[Violation]:
    for declared in _declared(ask):
        if "parameters" in declared and "parametersJsonSchema" in declared:
            yield Violation("parameters and parameters_json_schema are mutually exclusive.")


def _output_schema(ask: Ask) -> Iterator[Violation]:
    config = cast("Json", ask.body.get("generationConfig") or {})
    given = "responseSchema" in config or "responseJsonSchema" in config
    if given and config.get("responseMimeType") != "application/json":
        yield Violation(
            "* GenerateContentRequest.generation_config.response_schema: only allowed when "
            "response_mime_type is application/json.\n"
        )


def _output_subset(ask: Ask) -> Iterator[Violation]:
    config = cast("Json", ask.body.get("generationConfig") or {})
    for fault in outside_gemini(cast("Json", config.get("responseJsonSchema") or {})):
        yield Violation(f"* GenerateContentRequest.generation_config.response_json_schema: {fault}\n")


def _thinking(ask: Ask) -> Iterator[Violation]:
    config = cast("Json", cast("Json", ask.body.get("generationConfig") or {}).get("thinkingConfig") or {})
    if config and not thinks(ask.model):
        yield Violation("Thinking is not enabled for this model.")
    elif "thinkingBudget" in config and "thinkingLevel" in config:
        yield Violation("You can only set only one of thinking budget and thinking level.")


def _function_calls(ask: Ask) -> Iterator[Violation]:
    for role, parts in _contents(ask):
        if (role == "user" and _calls(parts)) or (role == "model" and _results(parts)):
            yield Violation(
                "Please ensure that function calls are in a model turn, and responses in a user turn."
            )


_TURNS = "https://github.com/google-gemini/gemini-cli/issues/11814"

RULES = (
    Rule("a field that it does not know", "documented", _API, _unknown),
    Rule("no contents", "documented", _API, _no_contents),
    Rule("a content without parts", "documented", _API, _no_parts),
    Rule(
        "a part without data, or with empty text",
        "seen",
        "https://github.com/router-for-me/CLIProxyAPI/issues/1292",
        _no_data,
    ),
    Rule("a role that it does not know", "documented", _API, _roles),
    Rule("a call of the user's, a result of the model's", "documented", _FUNCTIONS, _function_calls),
    Rule("a history that the model ends", "seen", "https://github.com/crewAIInc/crewAI/pull/6973", _last),
    Rule("a call that does not follow the user or a result", "seen", _TURNS, _calls_follow),
    Rule(
        "another number of results than of calls",
        "seen",
        "https://github.com/google-gemini/gemini-cli/issues/4217",
        _as_many,
    ),
    Rule(
        "a result that does not follow its call",
        "seen",
        "https://github.com/GoogleCloudPlatform/generative-ai/pull/368",
        _results_follow,
    ),
    Rule("a result under another name or id than its call", "documented", _FUNCTIONS, _same_names),
    Rule("a name out of bounds", "documented", _FUNCTIONS, _names),
    Rule("a tool twice", "inferred", _FUNCTIONS, _declared_twice),
    Rule("a call without a signature in the turn that goes on", "documented", _SIGNATURES, _unsigned),
    Rule(
        "a signature of another model or account, or of another part",
        "seen",
        "https://docs.apiyi.com/en/faq/gemini-thought-signature-missing",
        _signatures,
    ),
    Rule("more than 5 stop sequences", "documented", _API, _stops),
    Rule("a temperature out of bounds", "documented", _API, _temperature),
    Rule(
        "JSON beside tools before Gemini 3",
        "seen",
        "https://github.com/googleapis/python-genai/issues/867",
        _json_with_tools,
    ),
    Rule(
        "media of a type that it does not take",
        "documented",
        "https://ai.google.dev/gemini-api/docs/image-understanding",
        _media,
    ),
    Rule("media in a result before Gemini 3", "documented", _FUNCTIONS, _media_in_results),
    Rule(
        "a schema outside the subset of OpenAPI",
        "documented",
        "https://ai.google.dev/api/caching#Schema",
        _schemas,
    ),
    Rule(
        "two schemas of one tool",
        "documented",
        "https://ai.google.dev/api/caching#FunctionDeclaration",
        _both_schemas,
    ),
    Rule("an output schema without its type", "documented", _API, _output_schema),
    Rule("an output schema that it would not read in full", "documented", _API, _output_subset),
    Rule(
        "thinking of a model without, or set twice",
        "documented",
        "https://ai.google.dev/gemini-api/docs/thinking",
        _thinking,
    ),
)


def answer(said: Said, ask: Ask) -> list[bytes]:
    """Parts: thoughts, texts, calls; of calls the first is signed, else the last text, if it thinks."""
    parts: list[Json] = []
    if thinks(ask.model):
        parts += [{"text": piece, "thought": True} for piece in said.reasoning]
    parts += [{"text": piece} for piece in said.text]
    first = len(parts)
    parts += [
        {
            "functionCall": {
                "name": call.name,
                "args": json.loads("".join(call.arguments) or "{}"),
                **({"id": call.id} if call.id else {}),
            }
        }
        for call in said.calls
    ]
    if thinks(ask.model) and said.calls:
        parts[first]["thoughtSignature"] = seal(_PROVIDER, ask, _signed(parts[first]))
    elif thinks(ask.model) and said.reasoning:
        parts.append({"text": "", "thoughtSignature": seal(_PROVIDER, ask, "")})
    reason = {"length": "MAX_TOKENS", "content_filter": "SAFETY"}.get(said.finish, "STOP")
    usage = {"promptTokenCount": 9, "candidatesTokenCount": 7, "thoughtsTokenCount": 5}
    ended = {"candidates": [{"finishReason": reason, "index": 0}], "usageMetadata": usage}
    return sse(*({"candidates": [{"content": {"role": "model", "parts": [part]}}]} for part in parts), ended)
