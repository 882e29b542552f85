"""How servers that speak Chat Completions are told the schema of an answer and of a tool."""

import re
from typing import Any

from atto.models.base import ModelRequest, ToolSpec
from atto.models.openai_parts import spec_name
from atto.models.schemas.dialects import ANTHROPIC, GEMINI, MISTRAL, OPENAI, OPENAI_TOOLS, Dialect, Json
from atto.models.schemas.rewriting import rewritten
from atto.protocol.messages import Origin

BEFORE_SCHEMAS = re.compile(r"(?:ft:)?gpt-(?:3|4(?![.o\w]|-o))")
"""Models of OpenAI that know no schema of an answer."""

_STRICT_AT_GROQ = "openai/gpt-oss-"
_SCHEMAS_AT_GROQ = re.compile(r"openai/gpt-oss-|moonshotai/kimi-k2|meta-llama/llama-4")
_JSON_ONLY = ("deepseek.com", "z.ai", "bigmodel.cn")
_OF_VENDOR = {"anthropic": ANTHROPIC, "google": GEMINI}

_JSON: Json = {"type": "json_object"}


def response_format(request: ModelRequest, origin: Origin, *, by_openai: bool) -> tuple[Json | None, bool]:
    """The body's `response_format`, and whether the instruction must tell the schema because that does not
    hold the model to it.
    """
    schema = request.output_schema
    if schema is None:
        return None, False
    host = origin.provider.partition("@")[2].partition(":")[0]
    if by_openai:
        return (None, True) if BEFORE_SCHEMAS.match(origin.model) else (_strict(schema, OPENAI), False)
    if host.endswith(_JSON_ONLY):
        return _JSON, True
    if host.endswith("groq.com"):
        return _at_groq(request, schema, origin.model)
    if host.endswith("mistral.ai"):
        return _held(schema, MISTRAL)
    if host.endswith("openrouter.ai"):
        return _held(schema, _OF_VENDOR.get(origin.model.partition("/")[0], OPENAI))
    return _named(schema, schema), False


def tool(spec: ToolSpec, *, by_openai: bool) -> Json:
    """A tool; strict where its schema can be said so without a loss."""
    strict = rewritten(spec.parameters, OPENAI_TOOLS) if by_openai else None
    function: Json = {"name": spec.name, "description": spec.description, "parameters": spec.parameters}
    if strict is not None:
        function.update(parameters=strict, strict=True)
    return {"type": "function", "function": function}


def _at_groq(request: ModelRequest, schema: Json, model: str) -> tuple[Json | None, bool]:
    """Groq takes no format of an answer beside tools; few models know schemas, and two are held to them."""
    if request.tools:
        return None, True
    if model.startswith(_STRICT_AT_GROQ):
        return _strict(schema, OPENAI), False
    if _SCHEMAS_AT_GROQ.match(model):
        return _named(schema, schema), False
    return _JSON, True


def _held(schema: Json, dialect: Dialect) -> tuple[Json, bool]:
    written = rewritten(schema, dialect)
    return (_JSON, True) if written is None else (_named(schema, written, strict=True), False)


def _strict(schema: Json, dialect: Dialect) -> Json:
    written = rewritten(schema, dialect)
    if written is None:
        return _named(schema, schema, strict=False)
    return _named(schema, written, strict=True)


def _named(schema: Json, written: Json, **fields: Any) -> Json:
    name = spec_name(str(schema.get("title") or "answer"))
    return {"type": "json_schema", "json_schema": {"name": name, "schema": written, **fields}}
