"""Schemas from outside are refused where they could not be checked in bounded time, and else are."""

import asyncio
import threading
import time
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atto.agents import State, ToolContext, tool
from atto.agents.schema_check import MAX_STEPS, SchemaChecker, TooManySteps, check_schema
from atto.protocol.errors import InvalidTool, ToolArgumentsInvalid

CONTEXT = ToolContext(session="s", run_id="r", step=1, call_id="c", metadata={}, state=State({}))


def of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def doubled(levels: int, keyword: str = "allOf") -> dict[str, Any]:
    definitions: dict[str, Any] = {
        f"d{n}": {keyword: [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)
    }
    definitions[f"d{levels}"] = {"type": "string"}
    return {**of(a={"$ref": "#/$defs/d0"}), "$defs": definitions}


def nested(levels: int, keyword: str) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {keyword: {"a": schema} if keyword == "properties" else schema}
    return of(a=schema)


def chain(length: int) -> dict[str, Any]:
    definitions: dict[str, Any] = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(length)}
    return {**of(a={"$ref": "#/$defs/d0"}), "$defs": {**definitions, f"d{length}": {}}}


REFUSED = {
    "look-ahead": of(a={"pattern": "(?!a)b"}),
    "back-reference": of(a={"pattern": r"(a)\1"}),
    "repetition": of(a={"pattern": "a{1,5000}"}),
    "of names": of(a={"patternProperties": {"(?=a)": {}}}),
    "doubled references": doubled(22),
    "doubled references by anyOf": doubled(22, "anyOf"),
    "chain of references": chain(500),
    "reference to itself": of(a={"$ref": "#/properties/a"}),
    "references in a ring": {
        **of(a={"$ref": "#/$defs/b"}),
        "$defs": {"b": {"anyOf": [{"$ref": "#/$defs/c"}]}, "c": {"not": {"$ref": "#/$defs/b"}}},
    },
    "deep items": nested(3000, "items"),
    "deep properties": nested(3000, "properties"),
    "deep not": nested(3000, "not"),
    "deep value": of(a={"default": eval("[" * 90 + "]" * 90)}),  # noqa: S307
    "large": of(a={"enum": ["x" * 1000] * 300}),
    "many": of(**{f"p{n}": {"type": "string"} for n in range(20_000)}),
    "not JSON": of(a={"default": object()}),
}


@pytest.mark.parametrize("schema", REFUSED.values(), ids=REFUSED)
def test_a_schema_that_cannot_be_checked_in_bounded_time_is_refused_at_once(schema):
    began = time.process_time()
    with pytest.raises(InvalidTool):
        check_schema(schema)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "schema",
    [
        of(a={"pattern": r"^(\w+\s?)*$"}),
        of(a={"pattern": r"^\u00e9+\\u$"}),
        of(a={"$ref": "#"}),
        {
            **of(tree={"$ref": "#/$defs/t"}),
            "$defs": {"t": of(left={"$ref": "#/$defs/t"}, right={"$ref": "#/$defs/t"})},
        },
        doubled(8),
    ],
)
def test_a_schema_that_can_be_checked_is_taken(schema):
    check_schema(schema)
    SchemaChecker(schema).problem({})


@pytest.mark.parametrize(
    "pattern", [r"^(\w+\s?)*$", r"^(a+)+$", r"^(a|aa)+$", r"(x+x+)+y", r"^(([a-z])+.)+[A-Z]([a-z])+$"]
)
def test_a_pattern_is_matched_in_linear_time(pattern):
    checker = SchemaChecker(of(a={"pattern": pattern}, b={"patternProperties": {pattern: {"type": "null"}}}))
    began = time.process_time()
    assert checker.problem({"a": "a" * 5000 + "!", "b": {"x" * 5000: 1}})
    assert time.process_time() - began < 5


def test_a_check_ends_after_so_many_steps():
    level: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    for n in range(30):
        definitions[f"d{n}"] = of(a={"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2})
        level = {"a": level}
    definitions["d30"] = {}
    schema = {**of(a={"$ref": "#/$defs/d0"}), "$defs": definitions}
    check_schema(schema)
    with pytest.raises(TooManySteps, match=f"{MAX_STEPS:,} steps"):
        SchemaChecker(schema).problem({"a": level})
    assert SchemaChecker(schema).problem({"a": {"a": {}}}) is None


def test_unique_items_take_linear_time():
    checker = SchemaChecker(of(a={"type": "array", "uniqueItems": True}))
    began = time.process_time()
    assert checker.problem({"a": [{"n": n} for n in range(20_000)]}) is None
    assert checker.problem({"a": [{"n": n % 9_999} for n in range(20_000)]})
    assert time.process_time() - began < 10


def test_a_value_that_is_quoted_is_cut():
    assert len(SchemaChecker(of(a={"type": "string"})).problem({"a": ["x" * 100_000]}) or "") < 3000


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from([0.0, 1.0, 1.5])
    | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)
schemas = st.recursive(
    st.sampled_from(
        [
            {},
            {"type": "string"},
            {"type": "integer"},
            {"pattern": "^a+b?$"},
            {"uniqueItems": True},
            {"minLength": 2},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda each: {"items": each}, inner),
        st.builds(lambda a, b: {"anyOf": [a, b]}, inner, inner),
        st.builds(lambda a: {"not": a}, inner),
        st.builds(
            lambda a, b: {"properties": {"a": a}, "additionalProperties": b}, inner, inner | st.booleans()
        ),
        st.builds(
            lambda a, b: {"patternProperties": {"^a": a}, "properties": {"b": {}}, "additionalProperties": b},
            inner,
            inner | st.booleans(),
        ),
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(schemas, values)
def test_it_says_what_jsonschema_says(schema, value):
    schema = of(v=schema)
    check_schema(schema)
    expected = jsonschema.Draft202012Validator(schema).is_valid({"v": value})
    assert (SchemaChecker(schema).problem({"v": value}) is None) == expected


@pytest.mark.parametrize("is_async", [True, False])
async def test_arguments_are_checked_beside_the_event_loop_within_the_time_out(is_async, monkeypatch):
    entered, release, threads = threading.Event(), threading.Event(), []

    def slow(self, value):
        threads.append(threading.current_thread())
        entered.set()
        release.wait()
        return "too slow"

    async def async_find(**arguments):
        return "found"

    def find(**arguments):
        return "found"

    made = tool(schema={"type": "object"}, timeout=0.2)(async_find if is_async else find)
    monkeypatch.setattr(SchemaChecker, "problem", slow)
    call = asyncio.create_task(made.call({}, CONTEXT))
    try:
        while not entered.is_set():
            await asyncio.sleep(0.001)
        with pytest.raises(Exception, match="did not end within"):
            await call
    finally:
        release.set()
    assert threads != [threading.main_thread()]
    monkeypatch.undo()
    assert await made.call({}, CONTEXT) == "found"


async def test_the_model_is_told_that_its_arguments_take_too_long(monkeypatch):
    monkeypatch.setattr("atto.agents.schema_check.MAX_STEPS", 10)

    def find(**arguments):
        return "found"

    made = tool(schema=of(a={"items": {"type": "integer"}}))(find)
    with pytest.raises(ToolArgumentsInvalid, match="10 steps: give less"):
        await made.call({"a": list(range(100))}, CONTEXT)
