"""What the providers take of JSON Schema where they hold a model to it.

The sources are those of the rules in `atto.testing.providers`, which refuse what is outside.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

Json = dict[str, Any]

NUMBERS = frozenset({"multipleOf", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
LENGTHS = frozenset({"minItems", "maxItems"})
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})


@dataclass(frozen=True)
class Dialect:
    """A subset of JSON Schema.

    `keywords`: assertions on single values and arrays that it has; others are told in the description.
    `formats`: those of strings; None: all. `closed`: an object has no other properties than its own, and a
    value has a type. `optional`: a property that may be missing stays so, may be null instead, or is not to
    be said at all. `recursive`: a schema may refer to itself. `named_refs`: a reference may have a
    description, in an `anyOf` of its own. `tuples`: `prefixItems`. `odd_enums`: an enum may hold null and
    booleans. `fits`: whether a schema that is written so is within the limits.
    """

    keywords: frozenset[str]
    fits: Callable[[Json], bool]
    formats: frozenset[str] | None = None
    closed: bool = True
    optional: Literal["kept", "null", "never"] = "kept"
    recursive: bool = True
    named_refs: bool = False
    tuples: bool = False
    odd_enums: bool = True


def inner(schema: Json) -> Iterator[Json]:
    """The schemas right within one that was rewritten."""
    for name in ("properties", "$defs"):
        yield from cast("dict[str, Json]", schema.get(name) or {}).values()
    for name in ("anyOf", "prefixItems", "allOf"):
        yield from cast("list[Json]", schema.get(name) or [])
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield cast("Json", schema[name])


def every(schema: Json) -> Iterator[Json]:
    """A schema that was rewritten, and all within it."""
    yield schema
    for found in inner(schema):
        yield from every(found)


def is_union(schema: Json) -> bool:
    """Whether it takes values of several types."""
    return "anyOf" in schema or isinstance(schema.get("type"), list)


def count_optional(schema: Json) -> int:
    """How many properties may be missing, in all objects."""
    return sum(
        len(cast("Json", found.get("properties") or {}).keys() - set(found.get("required") or ()))
        for found in every(schema)
    )


def _fits_openai(schema: Json) -> bool:
    objects = [cast("Json", found.get("properties") or {}) for found in every(schema)]
    enums = [cast("list[Any]", found.get("enum") or []) for found in every(schema)]
    defs = cast("Json", schema.get("$defs") or {})
    names = [*defs, *(name for properties in objects for name in properties)]
    length = sum(map(len, names)) + sum(_length(enum) for enum in enums)
    return (
        schema.get("type") == "object"
        and "anyOf" not in schema
        and sum(map(len, objects)) <= 5000
        and _depth(schema) <= 10
        and length <= 120_000
        and sum(map(len, enums)) <= 1000
        and all(len(enum) <= 250 or _length(enum) <= 15_000 for enum in enums)
    )


def _length(enum: list[Any]) -> int:
    return sum(len(value) for value in enum if isinstance(value, str))


def _depth(schema: Json) -> int:
    below = max(map(_depth, inner(schema)), default=0)
    return below + ("properties" in schema)


def _fits_anthropic(schema: Json) -> bool:
    return count_optional(schema) <= 24 and sum(map(is_union, every(schema))) <= 16


def _fits(_: Json) -> bool:
    return True


OPENAI = Dialect(
    NUMBERS | LENGTHS | {"pattern"}, _fits_openai, formats=_FORMATS, optional="null", named_refs=True
)
"""OpenAI's strict mode, which Groq and OpenRouter have as well."""

OPENAI_TOOLS = replace(OPENAI, optional="never")
"""The same for tools: a null in the place of an argument that may be missing would not be taken."""

ANTHROPIC = Dialect(frozenset({"minItems"}), _fits_anthropic, formats=_FORMATS | {"uri"}, recursive=False)
"""Anthropic's structured outputs and strict tools."""

GEMINI = Dialect(
    LENGTHS | {"minimum", "maximum"}, _fits, closed=False, recursive=False, tuples=True, odd_enums=False
)
"""The properties of JSON Schema that Gemini reads in `responseJsonSchema`."""

MISTRAL = Dialect(
    NUMBERS | LENGTHS | {"pattern", "minLength", "maxLength"}, _fits, tuples=True, named_refs=True
)
"""Mistral's, whose SDK closes all objects and leaves the rest as it is."""
