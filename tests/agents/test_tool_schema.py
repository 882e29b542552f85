import enum
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, Required, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from msgspec import Meta

from atto.agents import Tool, ToolContext, tool
from atto.protocol.errors import InvalidTool, ToolArgumentsInvalid


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    return tool(function).spec.parameters


def bind(made: Tool[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    return made._parameters.bind(arguments)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Node:
    """A place in a tree."""

    title: str
    children: "list[Node]" = field(default_factory=list)


class Address(msgspec.Struct, forbid_unknown_fields=True):
    city: Annotated[str, Meta(min_length=1, description="Where")]
    zip: str | None = None


class Options(TypedDict, total=False):
    limit: Required[int]
    sort: Literal["up", "down"]


class Pair(NamedTuple):
    left: int
    right: str


def test_the_schema_of_a_plain_function():
    def weather(city: str, days: Annotated[int, Meta(ge=1, le=7)] = 3, *, metric: bool = True) -> str:
        return ""

    assert schema_of(weather) == {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 7, "default": 3},
            "metric": {"type": "boolean", "default": True},
        },
        "required": ["city"],
        "additionalProperties": False,
    }


def test_a_function_without_parameters_takes_an_empty_object():
    def ping() -> str:
        return ""

    made = tool(ping)
    assert made.spec.parameters == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }
    assert bind(made, {}) == {}
    with pytest.raises(ToolArgumentsInvalid, match="unknown field `x`"):
        bind(made, {"x": 1})


def everything(
    node: Node,
    address: Address,
    options: Options,
    pair: Pair,
    colour: Colour,
    day: date,
    moment: datetime | None,
    identity: UUID,
    price: Decimal,
    choice: Literal["a", 1],
    blob: bytes,
    counts: dict[int, int],
    tags: set[str],
    either: int | str | None,
    anything: Any,
    point: tuple[float, float],
) -> None:
    """Takes one of each."""


def test_every_type_that_msgspec_knows_is_described_and_converted():
    made = tool(everything)
    Draft202012Validator.check_schema(made.spec.parameters)
    assert json.loads(json.dumps(made.spec.parameters)) == made.spec.parameters
    arguments = {
        "node": {"title": "root", "children": [{"title": "leaf"}]},
        "address": {"city": "Graz"},
        "options": {"limit": 3},
        "pair": [1, "x"],
        "colour": "red",
        "day": "2030-01-02",
        "moment": "2030-01-02T03:04:05Z",
        "identity": "00000000-0000-0000-0000-000000000001",
        "price": "9.90",
        "choice": 1,
        "blob": "aGk=",
        "counts": {"7": 1},
        "tags": ["x"],
        "either": "text",
        "anything": {"deep": [1]},
        "point": [1, 2.5],
    }
    assert Draft202012Validator(made.spec.parameters).is_valid(arguments)
    assert bind(made, arguments) == {
        "node": Node("root", [Node("leaf")]),
        "address": Address("Graz"),
        "options": {"limit": 3},
        "pair": Pair(1, "x"),
        "colour": Colour.RED,
        "day": date(2030, 1, 2),
        "moment": datetime.fromisoformat("2030-01-02T03:04:05+00:00"),
        "identity": UUID(int=1),
        "price": Decimal("9.90"),
        "choice": 1,
        "blob": b"hi",
        "counts": {7: 1},
        "tags": {"x"},
        "either": "text",
        "anything": {"deep": [1]},
        "point": (1.0, 2.5),
    }


def test_titles_go_but_properties_called_title_stay():
    schema = schema_of(everything)
    assert schema["$defs"]["Node"] == {
        "type": "object",
        "description": "A place in a tree.",
        "properties": {
            "title": {"type": "string"},
            "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
        },
        "required": ["title"],
    }
    assert '"title": "' not in json.dumps(schema)


def test_a_model_is_told_the_format_of_dates_and_times():
    properties = schema_of(everything)["properties"]
    assert properties["moment"]["anyOf"][0] == {"type": "string", "format": "date-time"}
    assert properties["day"]["format"] == "date"

    def wake(at: time) -> None:
        pass

    assert schema_of(wake)["properties"]["at"] == {"type": "string", "format": "time"}


GOOGLE = """Looks a word up.

    Long words take longer.

    Args:
        word (str): What to look up,
            as it is spelled.
        limit: How many.

    Returns:
        What was found.
    """
NUMPY = """Looks a word up.

    Long words take longer.

    Parameters
    ----------
    word : str
        What to look up,
        as it is spelled.
    limit : int
        How many.

    Returns
    -------
    str
        What was found.
    """
REST = """Looks a word up.

    Long words take longer.

    :param word: What to look up,
        as it is spelled.
    :param limit: How many.
    :returns: What was found.
    """


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, REST])
def test_the_docstring_describes_the_tool_and_its_parameters(docstring):
    def look_up(word: str, limit: int = 1) -> str:
        return ""

    look_up.__doc__ = docstring
    spec = tool(look_up).spec
    assert spec.description == "Looks a word up.\n\nLong words take longer."
    word, limit = spec.parameters["properties"]["word"], spec.parameters["properties"]["limit"]
    assert word["description"].split() == ["What", "to", "look", "up,", "as", "it", "is", "spelled."]
    assert limit == {"type": "integer", "description": "How many.", "default": 1}


def test_numpy_style_may_describe_several_parameters_at_once():
    def add(x: int, y: int) -> int:
        """Adds.

        Parameters
        ----------
        x, y : int
            A summand.
        """
        return x + y

    properties = schema_of(add)["properties"]
    assert properties["x"]["description"] == properties["y"]["description"] == "A summand."


def test_a_description_beside_the_type_wins_over_the_docstring():
    def look_up(
        word: Annotated[str, Meta(description="From Meta")],
        page: Annotated[int, pydantic.Field(description="From Field")],
        size: Annotated[int, Meta(ge=1)],
    ) -> None:
        """Looks up.

        Args:
            word: From the docstring
            page: From the docstring
            size: From the docstring
        """

    properties = schema_of(look_up)["properties"]
    assert [properties[name]["description"] for name in ("word", "page", "size")] == [
        "From Meta",
        "From Field",
        "From the docstring",
    ]


def test_the_docstring_of_a_class_does_not_describe_the_parameter():
    def place(node: Node) -> None:
        """Places.

        Args:
            node: Where to begin
        """

    schema = schema_of(place)
    assert schema["properties"]["node"] == {"$ref": "#/$defs/Node", "description": "Where to begin"}
    assert schema["$defs"]["Node"]["description"] == "A place in a tree."


def test_a_default_that_json_cannot_say_stays_unsaid_and_works():
    marker = object()

    def find(where: Any = marker, node: Node = Node("root"), names: list[str] = ["x"]) -> None:  # noqa: B006, B008
        pass

    made = tool(find)
    assert made.spec.parameters["properties"]["where"] == {}
    assert made.spec.parameters["properties"]["node"]["default"] == {"title": "root", "children": []}
    assert made.spec.parameters["properties"]["names"]["default"] == ["x"]
    assert made.spec.parameters["required"] == []
    assert bind(made, {}) == {}


def test_the_context_is_no_part_of_the_schema_and_no_model_can_pass_it():
    def look_up(word: str, where: ToolContext) -> None:
        pass

    def maybe(word: str, where: ToolContext | None = None) -> None:
        pass

    for made in (tool(look_up), tool(maybe)):
        assert list(made.spec.parameters["properties"]) == ["word"]
        with pytest.raises(ToolArgumentsInvalid, match="unknown field `where`"):
            bind(made, {"word": "x", "where": {}})


def test_names_that_python_or_msgspec_use_themselves_are_ordinary_parameters():
    def odd(*, type: str, id: int, copy: int, self: int, title: str, default: str, arguments: Node) -> None:  # noqa: A002
        pass

    given = {
        "type": "a",
        "id": 1,
        "copy": 2,
        "self": 3,
        "title": "t",
        "default": "d",
        "arguments": {"title": "x"},
    }
    made = tool(odd)
    assert list(made.spec.parameters["properties"]) == list(given)
    assert bind(made, given) == {**given, "arguments": Node("x")}


def test_a_type_called_as_the_internal_struct_does_not_collide():
    class arguments(msgspec.Struct):  # noqa: N801
        x: int

    def odd(a: arguments) -> None:
        pass

    made = tool(odd)
    assert bind(made, {"a": {"x": 1}}) == {"a": arguments(1)}
    assert Draft202012Validator(made.spec.parameters).is_valid({"a": {"x": 1}})
    assert not Draft202012Validator(made.spec.parameters).is_valid({"a": {"x": "1"}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "missing required field `city`"),
        ({"city": 1}, "Expected `str`, got `int` - at `$.city`"),
        ({"city": "Graz", "days": "3"}, "Expected `int`, got `str` - at `$.days`"),
        ({"city": "Graz", "days": True}, "Expected `int`, got `bool` - at `$.days`"),
        ({"city": "Graz", "days": 3.5}, "Expected `int`, got `float` - at `$.days`"),
        ({"city": "Graz", "days": 8}, "Expected `int` <= 7 - at `$.days`"),
        ({"city": "Graz", "day": 1}, "unknown field `day`"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_place_and_the_reason(arguments, message):
    def weather(city: str, days: Annotated[int, Meta(le=7)] = 3) -> None:
        pass

    with pytest.raises(ToolArgumentsInvalid, match=re.escape(message)):
        bind(tool(weather), arguments)


def test_a_whole_number_is_an_integer_however_it_is_written():
    def count(n: int, ns: list[int], x: float) -> None:
        pass

    bound = bind(tool(count), {"n": 5.0, "ns": [1.0, 2], "x": 5.0})
    assert repr(bound) == repr({"n": 5, "ns": [1, 2], "x": 5.0})


def test_an_error_of_a_type_of_the_authors_own_refuses_the_arguments():
    @dataclass
    class Even:
        n: int

        def __post_init__(self) -> None:
            if self.n % 2:
                raise KeyError("odd")

    def take(even: Even) -> None:
        pass

    with pytest.raises(ToolArgumentsInvalid, match="odd"):
        bind(tool(take), {"even": {"n": 1}})


def plain(n: int, x: float, flag: bool = False) -> None:
    pass


def constrained(
    n: Annotated[int, Meta(ge=1, lt=9)],
    s: Annotated[str, Meta(min_length=1, max_length=3, pattern="^[a-c]*$")],
    xs: Annotated[list[int], Meta(max_length=2)],
    r: Annotated[float, Meta(gt=0)] = 1.0,
) -> None:
    pass


def composed(
    node: Node,
    address: Address,
    options: Options,
    pair: tuple[int, str],
    counts: dict[str, int],
    either: int | str | list[bool] | None = None,
) -> None:
    pass


def chosen(colour: Colour, choice: Literal["a", 1] | None, number: float, anything: Any = 1) -> None:
    pass


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 12)
    | st.integers()
    | st.sampled_from([1.0, 0.5, -2.5, 1e300, 1e-7])
    | st.sampled_from(["", "a", "abc", "abcd", "red", "up", "1", "zzz"])
)
NAMES = st.sampled_from(["title", "children", "city", "zip", "limit", "sort", "left", "x"])
JUNK = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
)
NODES = st.recursive(
    st.fixed_dictionaries({"title": st.text()}),
    lambda inner: st.fixed_dictionaries({"title": st.text(), "children": st.lists(inner | JUNK, max_size=2)}),
)
FITTING = {
    "n": st.integers(1, 8) | st.just(3.0),
    "x": st.floats(allow_nan=False, allow_infinity=False),
    "flag": st.booleans(),
    "s": st.text("abc", min_size=1, max_size=3),
    "xs": st.lists(st.integers(), max_size=3),
    "r": st.floats(0, 5),
    "node": NODES,
    "address": st.fixed_dictionaries({"city": st.text(max_size=2)}, optional={"zip": st.none() | st.text()}),
    "options": st.fixed_dictionaries(
        {"limit": st.integers()}, optional={"sort": st.sampled_from(["up", "down", "in"]), "other": SCALARS}
    ),
    "pair": st.tuples(st.integers(), st.text()).map(list),
    "counts": st.dictionaries(st.text(), st.integers(), max_size=2),
    "either": st.integers() | st.text() | st.lists(st.booleans()) | st.none(),
    "colour": st.sampled_from(["red", "blue"]),
    "choice": st.sampled_from(["a", 1, None]),
    "number": st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    "anything": JUNK,
}


@st.composite
def calls(draw: st.DrawFn) -> tuple[Tool[..., Any], dict[str, Any]]:
    made = TOOLS[draw(st.sampled_from(sorted(TOOLS)))]
    arguments = {name: draw(FITTING[name]) for name in made.spec.parameters["properties"]}
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from([*arguments, "extra"]))
        if draw(st.booleans()):
            arguments[name] = draw(JUNK)
        elif name in arguments and len(arguments) > 1:
            del arguments[name]
    return made, arguments


TOOLS = {function.__name__: tool(function) for function in (plain, constrained, composed, chosen)}


@given(calls())
def test_the_schema_accepts_what_the_tool_accepts_and_nothing_else(call):
    made, arguments = call
    try:
        bind(made, arguments)
    except ToolArgumentsInvalid:
        accepted = False
    else:
        accepted = True
    assert Draft202012Validator(made.spec.parameters).is_valid(arguments) == accepted


def starred(*words: str) -> None:
    pass


def keywords(**words: str) -> None:
    pass


def positional(word: str, /) -> None:
    pass


def unannotated(word) -> None:
    pass


def unbound(self, word: str) -> None:
    pass


def two_contexts(a: ToolContext, b: ToolContext) -> None:
    pass


def unknown_name(word: "Nowhere") -> None:  # noqa: F821
    pass


def no_json(word: object) -> None:
    pass


def nested_no_json(words: list[Callable[[], int]]) -> None:
    pass


def impossible_union(it: Node | Address) -> None:
    pass


@pytest.mark.parametrize(
    ("function", "fragments"),
    [
        (starred, ["`*words` has no name", "`words: list[str]`"]),
        (keywords, ["`**words` does not tell", "name the parameters"]),
        (positional, ["`word` is positional-only", "remove the `/`"]),
        (unannotated, ["`word` has no annotation", "write `word: str`"]),
        (unbound, ["a method without its object", "`tool(obj.method)`"]),
        (two_contexts, ["`a`, `b` are all annotated ToolContext", "keep one"]),
        (unknown_name, ["'Nowhere' is not defined", "at the top of the module"]),
        (no_json, ["`word` is annotated <class 'object'>, which JSON cannot carry", "use str, int"]),
        (nested_no_json, ["`words` is annotated list[", "which JSON cannot carry"]),
        (impossible_union, ["`it` is annotated", "more than one dict-like type"]),
    ],
)
def test_a_signature_that_cannot_work_is_refused_with_the_place_and_the_mend(function, fragments):
    with pytest.raises(InvalidTool) as caught:
        tool(function)
    for fragment in [f"tool {__name__}.{function.__qualname__}: ", *fragments]:
        assert fragment in str(caught.value)
