import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from atto.agents import State
from atto.protocol.errors import ToolFailed
from atto.protocol.events import StateChange
from atto.protocol.sessions import apply

KEYS = st.sampled_from(["a", "b", "c", "ä", ""])
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)
STATES = st.dictionaries(KEYS, VALUES, max_size=5)
OPERATIONS = st.one_of(
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.sampled_from(["delete", "pop", "read", "mutate", "replace_equal"]), KEYS, st.none()),
    st.tuples(st.just("setdefault"), KEYS, VALUES),
    st.tuples(st.just("update"), KEYS, STATES),
    st.tuples(st.just("clear"), KEYS, st.none()),
)


def perform(target: Any, operation: tuple[str, str, Any]) -> Any:
    name, key, value = copy.deepcopy(operation)
    try:
        return _perform(target, name, key, value)
    except KeyError:
        return "KeyError"


def _perform(target: Any, name: str, key: str, value: Any) -> Any:
    match name:
        case "set":
            target[key] = value
        case "delete":
            del target[key]
        case "pop":
            return target.pop(key)
        case "read":
            return target[key]
        case "mutate":
            return mutate(target[key])
        case "replace_equal":
            target[key] = copy.deepcopy(target[key])
        case "setdefault":
            return target.setdefault(key, value)
        case "update":
            target.update(value)
        case "clear":
            target.clear()
    return None


def mutate(value: Any) -> Any:
    if isinstance(value, list):
        value.append("more")
    elif isinstance(value, dict):
        for inner in value.values():
            mutate(inner)
        value["more"] = 1
    return value


@given(STATES, st.lists(OPERATIONS, max_size=12))
def test_a_view_behaves_as_a_dict_and_its_changes_make_the_base_that_dict(base, operations):
    untouched = copy.deepcopy(base)
    model = copy.deepcopy(base)
    view = State(base)
    for operation in operations:
        assert perform(view, operation) == perform(model, operation)
        assert len(view) == len(model)
        assert sorted(view) == sorted(model)
        assert [key in view for key in "abcäx"] == [key in model for key in "abcäx"]

    change = view.changes()

    assert json.dumps(base) == json.dumps(untouched)
    assert apply(base, change) == model
    assert dict(view) == model
    assert json.dumps(base) == json.dumps(untouched)


@given(STATES, st.lists(OPERATIONS, max_size=12))
def test_only_what_differs_is_a_change(base, operations):
    view = State(base)
    model = copy.deepcopy(base)
    for operation in operations:
        perform(view, operation)
        perform(model, operation)
    change = view.changes()
    encode = msgspec.json.encode
    assert change.set == {
        key: value for key, value in model.items() if key not in base or encode(value) != encode(base[key])
    }
    assert set(change.unset) == base.keys() - model.keys()


def test_a_view_that_was_only_read_has_no_changes():
    view = State({"cart": ["tea"], "name": "Ann"})
    assert view["cart"] == ["tea"]
    assert dict(view) == {"cart": ["tea"], "name": "Ann"}
    assert view.changes() == StateChange()


def test_mutation_in_place_is_a_change_that_never_reaches_the_base():
    base = {"cart": {"items": ["tea"]}}
    view = State(base)
    view["cart"]["items"].append("milk")
    assert view["cart"] == {"items": ["tea", "milk"]}
    assert view.changes() == StateChange(set={"cart": {"items": ["tea", "milk"]}})
    assert base == {"cart": {"items": ["tea"]}}


def test_a_change_aliases_neither_the_view_nor_the_tools_own_objects():
    mine = ["tea"]
    view = State({})
    view["cart"] = mine
    change = view.changes()
    mine.append("milk")
    view["cart"].append("bread")
    assert change.set == {"cart": ["tea"]}


def test_a_number_that_only_prints_otherwise_is_a_change():
    view = State({"n": 1, "yes": 1})
    view["n"] = 1.0
    view["yes"] = True
    change = view.changes()
    assert repr(change.set) == repr({"n": 1.0, "yes": True})


def test_deleting_what_was_added_is_no_change():
    view = State({})
    view["x"] = 1
    del view["x"]
    assert view.changes() == StateChange()
    assert "x" not in view


def test_a_key_that_is_deleted_and_written_again_is_set():
    view = State({"x": 1})
    del view["x"]
    with pytest.raises(KeyError):
        view["x"]
    with pytest.raises(KeyError):
        del view["x"]
    view["x"] = 2
    assert view.changes() == StateChange(set={"x": 2})


def test_keys_of_the_base_come_first_in_their_order():
    view = State({"a": 1, "b": 2, "c": 3})
    view["d"] = 4
    view["a"] = 9
    del view["b"]
    assert list(view) == ["a", "c", "d"]
    assert repr(view) == "State({'a': 9, 'c': 3, 'd': 4})"


class Colour(BaseModel):
    name: str
    when: datetime


@dataclass
class Point:
    x: int


def test_values_with_a_json_form_become_plain_json():
    view = State({})
    moment = datetime(2030, 1, 2, tzinfo=UTC)
    view["model"] = [Colour(name="red", when=moment)]
    view["point"] = Point(3)
    view["numbers"] = {1: (2, 3)}
    assert view.changes().set == {
        "model": [{"name": "red", "when": "2030-01-02T00:00:00Z"}],
        "point": {"x": 3},
        "numbers": {"1": [2, 3]},
    }


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("key", "value"), [("handle", object()), ("text", "\ud800"), ("cycle", cyclic()), ("\ud800", 1)]
)
def test_a_value_without_a_json_form_fails_the_tool_and_names_the_key(key, value):
    view = State({})
    view[key] = value
    with pytest.raises(ToolFailed, match=r"cannot keep '.+', a \w+, as JSON") as caught:
        view.changes()
    assert repr(key) in str(caught.value)


def test_a_key_must_be_a_string():
    view = State({"1": "one"})
    with pytest.raises(TypeError, match="is a string, not 1"):
        view[1] = "one"  # type: ignore[index]
    assert 1 not in view


class Watched(dict[str, Any]):
    """Records what is read of it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.read: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("went through the whole state")

    items = values = keys = __iter__  # type: ignore[assignment]


def test_the_cost_is_that_of_the_touched_keys():
    base = Watched({f"k{n}": n for n in range(1000)})
    view = State(base)
    view["k1"] = 5
    view["new"] = view["k2"]
    del view["k3"]
    assert "k4" in view
    assert len(view) == 1000
    assert view.changes() == StateChange(set={"k1": 5, "new": 2}, unset=("k3",))
    assert base.read == {"k1", "k2"}
