"""The subsets of JSON Schema that providers take where they hold a model to a schema."""

from collections.abc import Iterator
from typing import Any, cast

from atto.testing.providers.rule import Json

_NESTED = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "not", "if", "then", "else", "additionalProperties", "contains", "propertyNames")

OPENAI_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
)
_NOT_STRICT = (
    "allOf",
    "not",
    "oneOf",
    "dependentRequired",
    "dependentSchemas",
    "if",
    "then",
    "else",
    "default",
    "discriminator",
    "minLength",
    "maxLength",
    "uniqueItems",
    "contains",
    "minProperties",
    "maxProperties",
    "patternProperties",
    "propertyNames",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_NOT_ANTHROPIC = (
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "patternProperties",
)


def walk(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Json]]:
    """A schema and all schemas in it, each with its path."""
    if not isinstance(schema, dict):
        return
    found = cast("Json", schema)
    yield path, found
    for name in _NESTED:
        if isinstance(found.get(name), dict):
            for key, inner in cast("Json", found[name]).items():
                yield from walk(inner, (*path, name, key))
    for name in _LISTED:
        if isinstance(found.get(name), list):
            for at, inner in enumerate(cast("list[Any]", found[name])):
                yield from walk(inner, (*path, name, str(at)))
    for name in _SINGLE:
        yield from walk(found.get(name), (*path, name))


def outside_openai(schema: Json) -> Iterator[str]:
    """What OpenAI's strict mode refuses."""
    if schema.get("type") != "object" or "anyOf" in schema:
        kind = schema.get("type") or "None"
        yield f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'."
    for path, found in walk(schema):
        where = f"In context={path!r}"
        is_object = found.get("type") == "object" or "properties" in found
        if is_object and found.get("additionalProperties") is not False:
            yield f"{where}, 'additionalProperties' is required to be supplied and to be false."
        properties = cast("Json", found.get("properties") or {})
        if is_object and set(cast("list[str]", found.get("required") or [])) != set(properties):
            yield (
                f"{where}, 'required' is required to be supplied and to be an array including every key in "
                "properties."
            )
        if "$ref" in found and len(found) > 1:
            yield f"{where}, $ref cannot have keywords {sorted(found.keys() - {'$ref'})}."
        yield from (f"{where}, '{name}' is not permitted." for name in _NOT_STRICT if name in found)
        if "format" in found and found["format"] not in OPENAI_FORMATS:
            yield f"{where}, '{found['format']}' is not a valid format."
        if found.get("type") == "array" and not found.get("items"):
            yield f"{where}, array schema missing items."


def outside_anthropic(schema: Json) -> Iterator[str]:
    """What Anthropic's structured outputs refuse."""
    for path, found in walk(schema):
        if found.get("type") == "object" and found.get("additionalProperties") is not False:
            yield "For 'object' type, 'additionalProperties' must be explicitly set to false"
        kind = found.get("type", "object")
        yield from (
            f"For '{kind}' type, property '{name}' is not supported"
            for name in _NOT_ANTHROPIC
            if name in found
        )
        if found.get("minItems") not in {None, 0, 1}:
            yield "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
        if found.get("$ref") == "#" and path:
            yield "Circular reference detected in schema definitions: #"
