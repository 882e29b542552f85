"""Checking values against JSON Schemas that come from outside, in bounded time.

A schema can make a validator run for ever: a pattern that backtracks, references that double at every level,
values that must differ from one another. What can be seen in the schema is refused; patterns are matched in
linear time (RE2), and a check ends after so many steps.
"""

import functools
import json
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, cast

import msgspec

from atto.agents.extras import load
from atto.protocol.errors import InvalidTool

MAX_SIZE = 256 << 10
"""Bytes of a schema, as JSON."""
MAX_DEPTH = 64
"""Levels by which a schema may nest."""
MAX_EXPANSION = 10_000
"""Schemas that apply to one and the same value, references followed."""
MAX_CHAIN = 64
"""References and combinations that lead from one to the next at one and the same value."""
MAX_STEPS = 100_000
"""Keywords that one check may look at: about a second."""
_MESSAGE = 2000  # characters of an error: it quotes the value

_IN_PLACE = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_steps = threading.local()


class TooManySteps(Exception):
    """The check was given up."""


class SchemaChecker:
    """Checks values against a schema that `check_schema` has taken."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._best = load("jsonschema.exceptions").best_match
        self._validator = _validator_class()(schema, registry=load("referencing").Registry())

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`, and where. Raises `TooManySteps`, and what a schema makes it raise."""
        _steps.left = MAX_STEPS
        error = self._best(self._validator.iter_errors(value))
        if error is None:
            return None
        message = error.message if len(error.message) <= _MESSAGE else f"{error.message[:_MESSAGE]}…"
        return f"{message} - at `{error.json_path}`"


def check_schema(schema: Any) -> None:
    """Raises `InvalidTool` if it is not a valid schema of type object, complete in itself, that can be
    checked in bounded time.
    """
    _check_extent(schema)
    try:
        load("jsonschema").Draft202012Validator.check_schema(schema)
    except load("jsonschema").SchemaError as error:
        raise InvalidTool(f"its schema is not valid: {error.message} at `{error.json_path}`") from error
    if schema.get("type") != "object":
        raise InvalidTool('its schema needs `"type": "object"`: models pass arguments by name')
    _References(schema).check()


def linear(pattern: str) -> Any:
    """The pattern, to be matched in linear time. Raises `InvalidTool`."""
    try:
        return _compiled(pattern)
    except load("re2").error as error:
        reason = error.args[0]
        words = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
        raise InvalidTool(
            f"its schema has the pattern {pattern[:200]!r}, which cannot be matched in linear time "
            f"({words}): write it without look-around, back-references and repetitions of more than 1000"
        ) from error


@functools.lru_cache(maxsize=1024)
def _compiled(pattern: str) -> Any:
    re2 = load("re2")
    options = re2.Options()
    options.log_errors = False
    return re2.compile(_ESCAPE.sub(_in_re2, pattern), options)


def _in_re2(match: "re.Match[str]") -> str:
    return f"\\x{{{match[1]}}}" if match[1] else match[0]


def _check_extent(schema: Any) -> None:
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise InvalidTool(f"its schema is nested more than {MAX_DEPTH} levels deep")
        if isinstance(value, dict):
            waiting += [(each, depth + 1) for each in cast("dict[Any, Any]", value).values()]
        elif isinstance(value, list | tuple):
            waiting += [(each, depth + 1) for each in cast("list[Any]", value)]
        if len(waiting) > MAX_SIZE:
            raise InvalidTool(f"its schema has more than {MAX_SIZE:,} bytes")
    try:
        size = len(msgspec.json.encode(schema))
    except Exception as error:
        raise InvalidTool(f"its schema has no JSON form: {error}") from error
    if size > MAX_SIZE:
        raise InvalidTool(f"its schema has {size:,} bytes, more than {MAX_SIZE:,}")


class _References:
    """Follows all references of a schema, and counts what applies to one value."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._root = load("referencing.jsonschema").DRAFT202012.create_resource(schema)
        self._resolver = load("referencing").Registry().resolver_with_root(self._root)
        self._measured: dict[int, tuple[int, int]] = {}
        self._open: set[int] = set()

    def check(self) -> None:
        waiting, seen = [(self._root, self._resolver)], set[int]()
        while waiting:
            resource, resolver = waiting.pop()
            contents = cast("dict[str, Any] | bool", resource.contents)
            if isinstance(contents, dict) and id(contents) not in seen:
                seen.add(id(contents))
                _check_patterns(contents)
                self._measure(resource, resolver)
                waiting += self._in_place(contents, resource, resolver)
                waiting += [(inner, resolver.in_subresource(inner)) for inner in resource.subresources()]

    def _measure(self, resource: Any, resolver: Any, above: int = 0) -> tuple[int, int]:
        """How many schemas apply where this one does, and how long a chain they make."""
        if not isinstance(resource.contents, dict):
            return 1, 1
        contents = cast("dict[str, Any]", resource.contents)
        key = id(contents)
        if key in self._measured:
            return self._measured[key]
        if key in self._open:
            raise InvalidTool("its schema refers to itself without end: a reference must lead into a part")
        cost, length = 1, 1
        self._open.add(key)
        for inner, inner_resolver in self._in_place(contents, resource, resolver):
            _check_length(above + length)
            inner_cost, inner_length = self._measure(inner, inner_resolver, above + 1)
            cost, length = cost + inner_cost, max(length, 1 + inner_length)
        self._open.discard(key)
        _check_length(length)
        if cost > MAX_EXPANSION:
            raise InvalidTool(
                f"its schema applies more than {MAX_EXPANSION:,} schemas to one value: its references double"
            )
        self._measured[key] = cost, length
        return cost, length

    def _in_place(self, contents: dict[str, Any], resource: Any, resolver: Any) -> Iterator[tuple[Any, Any]]:
        for keyword in ("$ref", "$dynamicRef"):
            if keyword in contents:
                yield _resolved(contents[keyword], resource, resolver)
        for keyword in _IN_PLACE:
            part = contents.get(keyword)
            parts = cast("list[Any]", part) if isinstance(part, list) else [part]
            if keyword == "dependentSchemas" and isinstance(part, dict):
                parts = list(cast("dict[str, Any]", part).values())
            for each in parts:
                if isinstance(each, dict):
                    inner = load("referencing.jsonschema").DRAFT202012.create_resource(each)
                    yield inner, resolver.in_subresource(inner)


def _check_length(length: int) -> None:
    if length > MAX_CHAIN:
        raise InvalidTool(f"its schema has a chain of more than {MAX_CHAIN} references")


def _resolved(reference: str, resource: Any, resolver: Any) -> tuple[Any, Any]:
    try:
        found = resolver.lookup(reference)
    except load("referencing.exceptions").Unresolvable as error:
        raise InvalidTool(
            f"its schema refers to {reference!r}, which is not in it: schemas are never fetched, "
            "so put the definition under `$defs` and refer to `#/$defs/...`"
        ) from error
    return type(resource)(contents=found.contents, specification=resource._specification), found.resolver  # noqa: SLF001


def _check_patterns(contents: dict[str, Any]) -> None:
    patterns = [contents["pattern"]] if isinstance(contents.get("pattern"), str) else []
    if isinstance(contents.get("patternProperties"), dict):
        patterns += contents["patternProperties"]
        if "unevaluatedProperties" in contents:
            raise InvalidTool(
                "its schema has `unevaluatedProperties` beside `patternProperties`, which is not supported: "
                "use `additionalProperties`"
            )
    for pattern in patterns:
        linear(pattern)


@functools.cache
def _validator_class() -> Any:
    """jsonschema's, with our own keywords where its own take unbounded time, and every keyword counted."""
    jsonschema = load("jsonschema")
    keywords = {
        **jsonschema.Draft202012Validator.VALIDATORS,
        "pattern": _pattern,
        "patternProperties": _pattern_properties,
        "additionalProperties": _additional_properties,
        "uniqueItems": _unique_items,
    }
    counted = {name: _counted(keyword) for name, keyword in keywords.items()}
    return load("jsonschema.validators").extend(jsonschema.Draft202012Validator, counted)


def _counted(keyword: Callable[..., Any]) -> Callable[..., Any]:
    def count(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        _steps.left = getattr(_steps, "left", MAX_STEPS) - 1
        if _steps.left < 0:
            raise TooManySteps(f"the arguments were not checked within {MAX_STEPS:,} steps")
        return keyword(validator, value, instance, schema)

    return count


def _pattern(validator: Any, pattern: str, instance: Any, _schema: Any) -> Iterator[Any]:
    if validator.is_type(instance, "string") and not linear(pattern).search(instance):
        yield load("jsonschema").ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    validator: Any, patterns: dict[str, Any], instance: Any, _schema: Any
) -> Iterator[Any]:
    if validator.is_type(instance, "object"):
        for pattern, schema in patterns.items():
            for name, value in instance.items():
                if linear(pattern).search(name):
                    yield from validator.descend(value, schema, path=name, schema_path=pattern)


def _additional_properties(validator: Any, allowed: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not validator.is_type(instance, "object"):
        return
    known = schema.get("properties", {})
    patterns = [linear(pattern) for pattern in schema.get("patternProperties", {})]
    extras = [
        name
        for name in instance
        if name not in known and not any(pattern.search(name) for pattern in patterns)
    ]
    if isinstance(allowed, dict):
        for name in extras:
            yield from validator.descend(instance[name], allowed, path=name)
    elif not allowed and extras:
        names = ", ".join(json.dumps(name, ensure_ascii=False) for name in extras)
        were = "was" if len(extras) == 1 else "were"
        yield load("jsonschema").ValidationError(
            f"Additional properties are not allowed ({names} {were} unexpected)"
        )


def _unique_items(validator: Any, wanted: bool, instance: Any, _schema: Any) -> Iterator[Any]:
    if wanted and validator.is_type(instance, "array") and len(set(map(_frozen, instance))) < len(instance):
        yield load("jsonschema").ValidationError(f"{instance!r} has non-unique elements")


def _frozen(value: Any) -> Any:
    """Equal where JSON values are: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value).items()
        return "object", frozenset((name, _frozen(each)) for name, each in members)
    if isinstance(value, list | tuple):
        return "array", tuple(map(_frozen, cast("list[Any]", value)))
    return (type(value) is bool, value)
