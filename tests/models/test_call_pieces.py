import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.models.call_pieces import CallPieces

WEATHER = '{"city":"Rome"}'


def place(*pieces):
    """Pieces of (index, id, name, arguments), as calls of (id, name, arguments)."""
    placed = CallPieces()
    texts = {}
    for index, call_id, name, arguments in pieces:
        call = placed.place(index=index, call_id=call_id, name=name, arguments=arguments)
        texts[call.slot] = texts.get(call.slot, "") + arguments
    return [(call.id, call.name, texts[call.slot]) for call in placed.calls]


SHAPES = {
    "openai": [
        (0, "a", "f", ""), (0, "", "", '{"x"'), (0, "", "", ":1}"), (1, "b", "g", ""), (1, "", "", "{}"),
    ],
    "interleaved": [(0, "a", "f", '{"x"'), (1, "b", "g", "{"), (0, "", "", ":1}"), (1, "", "", "}")],
    "first index 1": [(1, "a", "f", '{"x":1}'), (2, "b", "g", "{}")],
    "index 0 for all": [(0, "a", "f", '{"x":1}'), (0, "b", "g", "{}")],
    "index 0 for all, interleaved": [
        (0, "a", "f", '{"x"'), (0, "b", "g", "{"), (0, "a", "", ":1}"), (0, "b", "", "}"),
    ],
    "no index": [(None, "a", "f", '{"x":'), (None, "", "", "1}"), (None, "b", "g", "{}")],
    "no index, id with every piece": [
        (None, "a", "f", '{"x":'), (None, "a", "", "1}"), (None, "b", "g", "{"), (None, "b", "g", "}"),
    ],
    "id and name with every piece": [
        (0, "a", "f", '{"x":'), (0, "a", "f", "1}"), (0, "a", "f", ""), (1, "b", "g", "{}"),
    ],
    "id after the name": [(0, "", "f", ""), (0, "a", "", '{"x":1}'), (1, "", "g", "{"), (1, "b", "", "}")],
    "pieces under a stray index": [(0, "a", "f", '{"x"'), (7, "", "", ":1}"), (8, "b", "g", "{}")],
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_servers_disagree_about_ids_and_indexes(shape):
    assert place(*SHAPES[shape]) == [("a", "f", '{"x":1}'), ("b", "g", "{}")]


def test_ollama_index_0_and_no_id():
    assert place((0, "", "f", WEATHER), (0, "", "f", WEATHER), (0, "", "g", "{}")) == [
        ("", "f", WEATHER),
        ("", "f", WEATHER),
        ("", "g", "{}"),
    ]


def test_vllm_repeats_an_empty_id_and_the_name():
    assert place((0, "", "f", ""), (0, "", "f", '{"city"'), (0, "", "f", ':"Rome"}'), (0, "", "f", "")) == [
        ("", "f", WEATHER)
    ]


def test_names_without_arguments():
    assert place((0, "", "f", ""), (0, "", "g", "")) == [("", "f", ""), ("", "g", "")]


def test_the_same_id_on_two_indexes_is_two_calls():
    assert len(place((0, "a", "f", "{}"), (1, "a", "f", "{}"))) == 2


json_objects = st.dictionaries(
    st.text(st.sampled_from('{}[]"\\ é')),
    st.recursive(st.text(st.sampled_from('{}[]"\\\n')), st.lists, max_leaves=5),
    max_size=3,
)


@given(json_objects, json_objects, st.data())
def test_two_calls_of_one_name_are_told_apart_wherever_their_arguments_are_cut(first, second, data):
    pieces = []
    for value in (first, second):
        text = json.dumps(value)
        cuts = [0, *sorted(data.draw(st.sets(st.integers(1, len(text) - 1)))), len(text)]
        pieces += [(0, "", "f", text[start:end]) for start, end in pairwise(cuts)]
    assert place(*pieces) == [("", "f", json.dumps(first)), ("", "f", json.dumps(second))]
