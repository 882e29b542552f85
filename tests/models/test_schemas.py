"""Schemas in the subsets of the providers: nothing outside of them, and no answer lost."""

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.models.schemas.dialects import ANTHROPIC, GEMINI, MISTRAL, OPENAI, OPENAI_TOOLS, Dialect
from atto.models.schemas.nulls import without_nulls
from atto.models.schemas.rewriting import rewritten
from atto.testing.providers.schemas import outside_anthropic, outside_gemini, outside_openai

DIALECTS = {
    "openai": (OPENAI, outside_openai),
    "openai tools": (OPENAI_TOOLS, outside_openai),
    "anthropic": (ANTHROPIC, outside_anthropic),
    "gemini": (GEMINI, outside_gemini),
    "mistral": (MISTRAL, lambda _: ()),
}
LEAVES: list[tuple[dict[str, Any], st.SearchStrategy[Any]]] = [
    ({"type": "string"}, st.text(max_size=5)),
    ({"type": "string", "minLength": 1, "maxLength": 5}, st.text(min_size=1, max_size=5)),
    ({"type": "string", "pattern": "^(?=a)"}, st.just("ab")),
    ({"type": "string", "format": "uri"}, st.just("https://example.com/")),
    ({"type": "integer", "minimum": 0, "default": 3}, st.integers(0, 99)),
    ({"type": "number", "exclusiveMinimum": 0}, st.floats(1, 5)),
    ({"type": ["string", "null"]}, st.none() | st.text(max_size=3)),
    ({"type": "null"}, st.none()),
    ({"enum": ["a", 1, None, True]}, st.sampled_from(["a", 1, None, True])),
    ({"const": "fixed", "description": "always"}, st.just("fixed")),
    ({"$ref": "#/$defs/Color", "description": "of the car"}, st.sampled_from(["red", "blue"])),
    ({"allOf": [{"$ref": "#/$defs/Color"}]}, st.just("red")),
    (
        {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
        st.just([1, "a"]),
    ),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, st.just({"a": 1})),
    ({"type": "object"}, st.just({"any": [1]})),
    ({}, st.just([1])),
    ({"$ref": "#/$defs/Node"}, st.just({"next": {"value": 1}})),
]
DEFS = {
    "Color": {"enum": ["red", "blue"], "title": "Color"},
    "Node": {
        "type": "object",
        "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/$defs/Node"}},
        "additionalProperties": False,
    },
}


@st.composite
def pairs(draw: st.DrawFn, depth: int = 2) -> tuple[dict[str, Any], Any]:
    """A schema, and a value of it."""
    kind = draw(st.sampled_from(["leaf", "object", "array", "union"] if depth else ["leaf"]))
    if kind == "leaf":
        schema, values = draw(st.sampled_from(LEAVES))
        return schema, draw(values)
    if kind == "array":
        schema, value = draw(pairs(depth - 1))
        return {"type": "array", "items": schema, "minItems": 1, "uniqueItems": True}, [value]
    if kind == "union":
        (one, value), (other, _) = draw(pairs(depth - 1)), draw(pairs(depth - 1))
        return {draw(st.sampled_from(["anyOf", "oneOf"])): [one, other], "title": "Either"}, value
    return draw(objects(depth))


@st.composite
def objects(draw: st.DrawFn, depth: int = 3) -> tuple[dict[str, Any], Any]:
    properties = draw(st.dictionaries(st.sampled_from("abcd"), pairs(depth - 1), min_size=1, max_size=3))
    required = [name for name in properties if draw(st.booleans())]
    present = [name for name in properties if name in required or draw(st.booleans())]
    schema: dict[str, Any] = {
        "type": "object",
        "properties": {name: schema for name, (schema, _) in properties.items()},
        "required": required,
        "minProperties": 0,
    }
    if draw(st.booleans()):
        schema["additionalProperties"] = False
    return schema, {name: properties[name][1] for name in present}


def valid(value: Any, schema: dict[str, Any]) -> bool:
    return jsonschema.Draft202012Validator(schema).is_valid(value)


def filled(value: Any, schema: Any, root: dict[str, Any]) -> Any:
    """With the nulls of what is missing, as a strict mode has it."""
    if "$ref" in schema:
        return filled(value, root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    for branch in schema.get("anyOf", ()):
        fuller = filled(value, branch, root)
        if valid(fuller, {**branch, "$defs": root.get("$defs", {})}):
            return fuller
    if isinstance(value, dict) and "properties" in schema:
        return {
            name: filled(value[name], inner, root) if name in value else None
            for name, inner in schema["properties"].items()
        } | {name: inner for name, inner in value.items() if name not in schema["properties"]}
    if isinstance(value, list) and isinstance(schema.get("items"), dict):
        return [filled(item, schema["items"], root) for item in value]
    return value


@pytest.mark.parametrize(("dialect", "outside"), DIALECTS.values(), ids=DIALECTS)
@given(pair=objects())
def test_what_is_written_lies_in_the_subset_and_takes_what_was_taken(
    dialect: Dialect, outside: Any, pair: tuple[dict[str, Any], Any]
):
    schema, value = {**pair[0], "$defs": DEFS}, pair[1]
    if not valid(value, schema):
        return  # both branches of a `oneOf`
    before = json.dumps(schema)
    written = rewritten(schema, dialect)
    assert json.dumps(schema) == before
    if written is None:
        return
    jsonschema.Draft202012Validator.check_schema(written)
    assert list(outside(written)) == []
    answer = value if dialect.optional == "kept" else filled(value, written, written)
    assert valid(answer, written)
    if dialect is not OPENAI:
        assert valid(answer, schema)


@given(pair=objects())
def test_nulls_that_strict_mode_demands_are_undone(pair: tuple[dict[str, Any], Any]):
    schema, value = {**pair[0], "$defs": DEFS}, pair[1]
    written = rewritten(schema, OPENAI)
    if written is not None and valid(value, schema):
        assert valid(without_nulls(filled(value, written, written), schema), schema)


def one(schema: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}, "required": ["a"], **fields}


UNSAID = {
    "a dictionary": one({"type": "object", "additionalProperties": {"type": "string"}}),
    "an object of any keys": one({"type": "object"}),
    "any value": one({}),
    "open on purpose": {**one({"type": "string"}), "additionalProperties": True},
    "patterns of names": {**one({"type": "string"}), "patternProperties": {"^x": {}}},
    "all of several": one({"allOf": [{"type": "string"}, {"minLength": 2}]}),
    "a union beside properties": {**one({"type": "string"}), "anyOf": [{"required": ["a"]}]},
    "a list of anything": one({"type": "array"}),
    "a reference elsewhere": one({"$ref": "https://example.com/schema"}),
    "a reference to nothing": one({"$ref": "#/$defs/Missing"}),
    "a required name without a schema": {**one({"type": "string"}), "required": ["a", "b"]},
    "an enum of objects": one({"enum": [{"a": 1}]}),
}


@pytest.mark.parametrize("dialect", [OPENAI, ANTHROPIC], ids=["openai", "anthropic"])
@pytest.mark.parametrize("schema", UNSAID.values(), ids=UNSAID)
def test_what_cannot_be_said_is_not_said_otherwise(schema: dict[str, Any], dialect: Dialect):
    assert rewritten(schema, dialect) is None


def deep(levels: int) -> dict[str, Any]:
    return one({"type": "string"}) if levels == 1 else one(deep(levels - 1))


def wide(count: int, **fields: Any) -> dict[str, Any]:
    properties = {f"p{number}": {"type": "string"} for number in range(count)}
    return {"type": "object", "properties": properties, "required": list(properties), **fields}


LIMITS = {
    "levels": (OPENAI, deep(10), deep(11)),
    "properties": (OPENAI, wide(5000), wide(5001)),
    "enum values": (OPENAI, one({"enum": list(range(1000))}), one({"enum": list(range(1001))})),
    "a long enum": (
        OPENAI,
        one({"enum": [f"{number:060}" for number in range(250)]}),
        one({"enum": [f"{number:060}" for number in range(251)]}),
    ),
    "all names": (OPENAI, one({"enum": ["x" * 119_999]}), one({"enum": ["x" * 120_000]})),
    "optional": (ANTHROPIC, wide(24, required=[]), wide(25, required=[])),
}


@pytest.mark.parametrize(("dialect", "within", "beyond"), LIMITS.values(), ids=LIMITS)
def test_limits(dialect: Dialect, within: dict[str, Any], beyond: dict[str, Any]):
    outside = outside_openai if dialect is OPENAI else outside_anthropic
    assert (written := rewritten(within, dialect)) is not None
    assert list(outside(written)) == []
    assert rewritten(beyond, dialect) is None
    closed = {**beyond, "additionalProperties": False}
    assert list(outside(closed))


def test_what_is_not_held_is_told():
    schema = one({"type": "string", "description": "a name", "minLength": 2, "pattern": "^(?!x)"})
    written = rewritten(schema, OPENAI)
    assert written is not None
    assert written["properties"]["a"] == {
        "type": "string",
        "description": 'a name\nminLength: 2; pattern: "^(?!x)"',
    }


def test_recursion():
    schema = {**one({"$ref": "#/$defs/Node"}), "$defs": DEFS}
    written = rewritten(schema, OPENAI)
    assert written is not None
    assert written["$defs"]["Node"]["properties"]["next"] == {
        "anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]
    }
    assert rewritten(schema, ANTHROPIC) is None
    rooted = rewritten({"$ref": "#/$defs/Node", "$defs": DEFS}, OPENAI)
    assert rooted is not None
    assert rooted["type"] == "object"


def test_a_tool_is_strict_only_where_nothing_changes():
    optional = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert rewritten(optional, OPENAI_TOOLS) is None
    nullable = {"type": "object", "properties": {"a": {"type": ["integer", "null"]}}}
    written = rewritten(nullable, OPENAI_TOOLS)
    assert written is not None
    assert written["required"] == ["a"]


def test_half_a_character_is_no_crash():
    assert rewritten(one({"type": "string", "description": "\ud800"}), OPENAI) is not None
