import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

import annotated_types
import msgspec
import pydantic
import pytest
from jsonschema import Draft202012Validator
from msgspec import Meta
from pydantic import BaseModel, ConfigDict, Field, HttpUrl

from atto.agents import Tool, tool
from atto.protocol.errors import InvalidTool, ToolArgumentsInvalid


class Item(BaseModel):
    """Something to buy."""

    title: str
    amount: Annotated[int, Field(ge=1)] = 1


class Cart(BaseModel):
    items: list[Item]
    parent: "Cart | None" = None


class Gift(BaseModel):
    kind: Literal["gift"]


@pydantic.dataclasses.dataclass
class Range:
    low: Annotated[int, Field(ge=0)]


class Parcel(msgspec.Struct):
    cart: Cart
    moment: datetime


def bind(made: Tool[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    return made._parameters.bind(arguments)


def order(
    cart: Cart,
    either: Item | Gift | int,
    count: Annotated[int, Field(ge=2, description="How many")],
    span: Range,
    home: HttpUrl | None = None,
    *,
    extra: Item = Item(title="bag"),  # noqa: B008
    plain: int = 0,
) -> None:
    """Orders.

    Args:
        cart: What to order
        extra: On top
    """


FITTING: dict[str, Any] = {
    "cart": {"items": [{"title": "tea"}], "parent": {"items": []}},
    "either": {"kind": "gift"},
    "count": 2,
    "span": {"low": 0},
    "home": "https://example.com/",
    "plain": 1,
}


def test_models_and_constraints_of_pydantic_convert():
    assert bind(tool(order), FITTING) == {
        "cart": Cart(items=[Item(title="tea")], parent=Cart(items=[])),
        "either": Gift(kind="gift"),
        "count": 2,
        "span": Range(0),
        "home": HttpUrl("https://example.com/"),
        "plain": 1,
    }


def test_their_schema_is_complete_in_itself_and_agrees():
    schema = tool(order).spec.parameters
    validator = Draft202012Validator(schema)
    assert validator.is_valid(FITTING)
    for name, value in [
        ("cart", {"items": [{"title": 1}]}),
        ("cart", {"items": [], "parent": {"items": [{"title": "x", "amount": 0}]}}),
        ("either", "x"),
        ("count", 1),
        ("span", {"low": -1}),
        ("home", 1),
    ]:
        assert not validator.is_valid({**FITTING, name: value}), name
        with pytest.raises(ToolArgumentsInvalid, match=f"`{name}`: "):
            bind(tool(order), {**FITTING, name: value})
    assert schema["properties"]["count"] == {"type": "integer", "minimum": 2, "description": "How many"}
    assert schema["properties"]["cart"]["description"] == "What to order"
    assert schema["properties"]["extra"]["description"] == "On top"
    assert schema["properties"]["extra"]["default"] == {"title": "bag", "amount": 1}
    assert schema["required"] == ["cart", "either", "count", "span"]
    assert '"title": "' not in json.dumps({**schema, "properties": {**schema["properties"], "extra": {}}})


def test_models_within_types_of_msgspec_convert_and_are_described():
    def send(parcel: Parcel) -> None:
        pass

    made = tool(send)
    good = {"parcel": {"cart": {"items": [{"title": "tea"}]}, "moment": "2030-01-01T00:00:00Z"}}
    bad = {"parcel": {"cart": {"items": [{"title": 1}]}, "moment": "2030-01-01T00:00:00Z"}}
    assert bind(made, good)["parcel"].cart == Cart(items=[Item(title="tea")])
    validator = Draft202012Validator(made.spec.parameters)
    assert validator.is_valid(good)
    assert not validator.is_valid(bad)
    with pytest.raises(
        ToolArgumentsInvalid, match=re.escape("string - at `items[0].title` - at `$.parcel.cart`")
    ):
        bind(made, bad)


def test_models_of_one_name_in_two_parameters_do_not_collide():
    class Inner(BaseModel):
        a: int

    class Left(BaseModel):
        inner: list[Inner]

    first = Inner

    class Inner(BaseModel):
        b: int

    class Right(BaseModel):
        inner: list[Inner]

    def both(left: Left, right: Right) -> None:
        pass

    made = tool(both)
    arguments = {"left": {"inner": [{"a": 1}]}, "right": {"inner": [{"b": 2}]}}
    assert bind(made, arguments) == {
        "left": Left(inner=[first(a=1)]),
        "right": Right(inner=[Inner(b=2)]),
    }
    assert Draft202012Validator(made.spec.parameters).is_valid(arguments)


def test_two_models_of_one_name_with_different_parts_cannot_hide_in_one_struct():
    def make(annotation: Any) -> type[BaseModel]:
        inner = pydantic.create_model("Inner", x=(annotation, ...))
        return pydantic.create_model("Outer", inner=(inner, ...))

    pair = msgspec.defstruct("Pair", [("a", make(int)), ("b", make(str))])

    def both(pair: pair) -> None:  # type: ignore[valid-type]
        pass

    with pytest.raises(InvalidTool, match="two models called Outer have a different Inner each: rename one"):
        tool(both)


def test_a_model_keeps_its_own_rules():
    class Strict(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid")
        moment: datetime
        n: int

    def take(strict: Strict, item: Item) -> None:
        pass

    made = tool(take)
    item = {"title": "x", "amount": "3"}
    moment = "2030-01-01T00:00:00Z"
    bound = bind(made, {"strict": {"moment": moment, "n": 1}, "item": item})
    assert bound["item"].amount == 3
    assert bound["strict"].moment == datetime.fromisoformat("2030-01-01T00:00:00+00:00")
    with pytest.raises(ToolArgumentsInvalid, match="valid integer - at `n`"):
        bind(made, {"strict": {"moment": moment, "n": "1"}, "item": item})
    with pytest.raises(ToolArgumentsInvalid, match=r"Extra inputs .+ at `other`"):
        bind(made, {"strict": {"moment": moment, "n": 1, "other": 1}, "item": item})


def test_constraints_of_annotated_types_are_read_where_pydantic_is_there():
    def count(n: Annotated[int, annotated_types.Gt(1)]) -> None:
        pass

    made = tool(count)
    assert made.spec.parameters["properties"]["n"] == {"type": "integer", "exclusiveMinimum": 1}
    with pytest.raises(ToolArgumentsInvalid, match="greater than 1"):
        bind(made, {"n": 1})


def test_constraints_of_msgspec_on_types_of_pydantic_are_refused_not_ignored():
    def take(items: Annotated[list[Item], Meta(max_length=2)]) -> None:
        pass

    def described(items: Annotated[list[Item], Meta(description="All")]) -> None:
        pass

    with pytest.raises(InvalidTool, match=r"`items` mixes constraints .+ write them as `pydantic.Field"):
        tool(take)
    assert tool(described).spec.parameters["properties"]["items"]["type"] == "array"


def test_what_pydantic_cannot_read_is_refused():
    class Handle:
        pass

    def take(it: Item | Handle) -> None:
        pass

    class Hook(BaseModel):
        call: Callable[[], int]

    def hook(it: Hook) -> None:
        pass

    for function in (take, hook):
        with pytest.raises(InvalidTool, match=r"`it` is annotated .+, which pydantic cannot read"):
            tool(function)


def test_constraints_that_cannot_be_hashed_are_read():
    def take(
        ns: list[Annotated[int, Field(ge=1, json_schema_extra={"x": 1})]],
        ms: list[Annotated[int, Meta(ge=1, extra_json_schema={"x": 1})]],
    ) -> None:
        pass

    properties = tool(take).spec.parameters["properties"]
    item = {"type": "integer", "minimum": 1, "x": 1}
    assert properties == {name: {"type": "array", "items": item} for name in ("ns", "ms")}


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_tools_without_pydantic_do_not_import_it():
    out = run("""
import sys
from atto.agents import tool
print([name for name in ("pydantic", "jsonschema", "docstring_parser", "referencing") if name in sys.modules])
@tool
def add(x: int, y: list[int]) -> str:
    "Adds."
@tool(schema={"type": "object"})
def free(**arguments: int) -> str:
    "Takes anything."
print("pydantic" in sys.modules, add.spec.description)
""")
    assert out == "[]\nFalse Adds."


def test_without_pydantic_constraints_that_nobody_would_read_are_refused():
    out = run("""
from typing import Annotated
import annotated_types
from atto.agents import tool
from atto.protocol.errors import InvalidTool
def count(n: Annotated[int, annotated_types.Gt(1)]) -> None: ...
try:
    tool(count)
except InvalidTool as error:
    print(error)
""")
    assert "`n` has constraints of annotated_types, which only pydantic reads" in out


@dataclass
class Result:
    item: Item


async def test_models_in_results_become_json():
    from atto.agents.results import to_result

    assert json.loads(str(to_result([Result(Item(title="tea"))]))) == [
        {"item": {"title": "tea", "amount": 1}}
    ]
