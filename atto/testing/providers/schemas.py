"""The subsets of JSON Schema that providers take where they hold a model to a schema."""

import re
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
    "prefixItems",
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
        is_object = "object" in _types(found) or "properties" in found
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
        yield from _unknown_to_openai(found, where)
    yield from _beyond_openai(schema)


def _unknown_to_openai(found: Json, where: str) -> Iterator[str]:
    yield from (f"{where}, '{name}' is not permitted." for name in _NOT_STRICT if name in found)
    if "format" in found and found["format"] not in OPENAI_FORMATS:
        yield f"{where}, '{found['format']}' is not a valid format."
    if "array" in _types(found) and not found.get("items"):
        yield f"{where}, array schema missing items."
    if not found.keys() & {"type", "$ref", "anyOf"}:
        yield f"{where}, schema must have a 'type' key."
    if re.search(r"\(\?<?[=!]", str(found.get("pattern", ""))):
        yield f"{where}, 'pattern' must not look around."


def _beyond_openai(schema: Json) -> Iterator[str]:
    found = [inner for _, inner in walk(schema)]
    names = [
        name for one in found for key in ("properties", "$defs") for name in cast("Json", one.get(key) or {})
    ]
    enums = [
        cast("list[Any]", one.get("enum") or ([one["const"]] if "const" in one else [])) for one in found
    ]
    levels = (
        max(path.count("properties") for path, one in walk(schema) if one.get("properties")) if names else 0
    )
    if sum(len(cast("Json", one.get("properties") or {})) for one in found) > 5000:
        yield "Expected at most 5000 object properties in total"
    if levels + 1 > 10:
        yield f"{levels + 1} levels of nesting exceeds limit of 10"
    if sum(map(len, enums)) > 1000:
        yield "Expected at most 1000 enum values in total"
    lengths = [sum(len(value) for value in enum if isinstance(value, str)) for enum in enums]
    if any(len(enum) > 250 and length > 15_000 for enum, length in zip(enums, lengths, strict=True)):
        yield "Expected at most 15000 characters in an enum of more than 250 values"
    if sum(map(len, names)) + sum(lengths) > 120_000:
        yield "Expected at most 120000 characters of names and enum values"


def _types(schema: Json) -> list[Any]:
    kind = schema.get("type")
    return cast("list[Any]", kind) if isinstance(kind, list) else [kind]


def outside_anthropic(schema: Json) -> Iterator[str]:
    """What Anthropic's structured outputs refuse."""
    for path, found in walk(schema):
        if "object" in _types(found) and found.get("additionalProperties") is not False:
            yield "For 'object' type, 'additionalProperties' must be explicitly set to false"
        kind = _types(found)[0] or "object"
        yield from (
            f"For '{kind}' type, property '{name}' is not supported"
            for name in _NOT_ANTHROPIC
            if name in found
        )
        if found.get("minItems") not in {None, 0, 1}:
            yield "For 'array' type, 'minItems' values other than 0 or 1 are not supported"
        if found.get("$ref") == "#" and path:
            yield "Circular reference detected in schema definitions: #"
        if "$ref" in found and found.keys() - {"$ref"}:
            yield "'$ref' does not go with other keywords"
        if "prefixItems" in found or found.get("additionalProperties"):
            yield "'prefixItems' and schemas of 'additionalProperties' are not supported"
    yield from _circular(schema)
    yield from _beyond_anthropic(schema)


def _circular(schema: Json) -> Iterator[str]:
    defs = cast("Json", schema.get("$defs") or {})
    leads = {
        name: {str(one["$ref"]).rpartition("/")[2] for _, one in walk(inner) if "$ref" in one}
        for name, inner in defs.items()
    }
    for name in defs:
        reached, new = set[str](), leads[name]
        while new:
            reached |= new
            new = {far for near in new for far in leads.get(near, ())} - reached
        if name in reached:
            yield f"Circular reference detected in schema definitions: {name}"


def _beyond_anthropic(schema: Json) -> Iterator[str]:
    found = [inner for _, inner in walk(schema)]
    optional = sum(
        len(
            cast("Json", one.get("properties") or {}).keys()
            - set(cast("list[str]", one.get("required") or ()))
        )
        for one in found
    )
    if optional > 24:
        yield f"Schemas contains too many optional parameters ({optional})"
    unions = sum("anyOf" in one or isinstance(one.get("type"), list) for one in found)
    if unions > 16:
        yield f"Schemas contains too many parameters with union types ({unions})"


_GEMINI = frozenset(
    {"$id", "$defs", "$ref", "$anchor", "type", "format", "title", "description", "enum", "items"}
    | {"prefixItems", "minItems", "maxItems", "minimum", "maximum", "anyOf", "oneOf", "properties"}
    | {"additionalProperties", "required", "propertyOrdering"}
)


def outside_gemini(schema: Json) -> Iterator[str]:
    """What Gemini does not read in a `responseJsonSchema`, where a model is held to less than it says."""
    for _, found in walk(schema):
        yield from (f"Unsupported property: {name}" for name in sorted(found.keys() - _GEMINI))
        if "$ref" in found and any(not name.startswith("$") for name in found):
            yield "$ref does not allow other properties"
        values = cast("list[Any]", found.get("enum") or [])
        if any(isinstance(value, bool) or not isinstance(value, str | int | float) for value in values):
            yield "enum: only strings and numbers are supported"
