"""Annotations that are strings, as `from __future__ import annotations` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import pytest
from msgspec import Meta

from atto.agents import ToolContext, tool
from atto.protocol.errors import InvalidTool, ToolArgumentsInvalid

if TYPE_CHECKING:
    from fractions import Fraction


@dataclass
class Point:
    x: int


def place(
    point: Point, context: ToolContext, n: Annotated[int, Meta(ge=1, description="How often")] = 1
) -> str:
    return f"{point.x} {n}"


def unreachable(x: Fraction) -> None:
    pass


def test_annotations_that_are_strings_are_read_with_their_constraints():
    made = tool(place)
    assert made.spec.parameters["properties"] == {
        "point": {"$ref": "#/$defs/Point"},
        "n": {"type": "integer", "minimum": 1, "description": "How often", "default": 1},
    }
    assert made._parameters.bind({"point": {"x": 1}, "n": 2}) == {"point": Point(1), "n": 2}
    with pytest.raises(ToolArgumentsInvalid, match="`int` >= 1"):
        made._parameters.bind({"point": {"x": 1}, "n": 0})


def test_a_name_that_exists_for_type_checkers_only_is_refused():
    with pytest.raises(InvalidTool, match=r"'Fraction' is not defined.+not .+ under TYPE_CHECKING"):
        tool(unreachable)
