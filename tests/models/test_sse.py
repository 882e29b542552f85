from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.models.sse import EventParser
from atto.protocol.errors import ModelError

STREAM = (
    "\ufeffdata: one\n\n: a comment\r\n\r\ndata:two\r\ndata:  lines\r\n\r\nevent: x\nid: 7\n"
    'data: {"a":"é🎉"}\n\n'
    "retry: 5\n\ndata\n\ndata:\n\ndata: a\rdata: b\r\rdata: [DONE]\n\ndata: cut"
).encode()
EXPECTED = [b"one", b"two\n lines", '{"a":"é🎉"}'.encode(), b"a\nb", b"[DONE]"]


def parse(*pieces):
    parser = EventParser()
    return [payload for piece in pieces for payload in parser.feed(piece)]


def pieces_of(data, cuts):
    edges = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def test_the_forms_that_the_standard_allows():
    assert parse(STREAM) == EXPECTED


@given(st.lists(st.integers(0, len(STREAM))))
def test_the_split_does_not_matter(cuts):
    assert parse(*pieces_of(STREAM, cuts)) == EXPECTED


def test_byte_by_byte():
    assert parse(*(STREAM[at : at + 1] for at in range(len(STREAM)))) == EXPECTED


@given(st.lists(st.sampled_from([b"data:", b" ", b"x", b"\r", b"\n", b":", b"id", "é".encode()])), st.data())
def test_any_bytes_parse_the_same_however_they_are_split(tokens, data):
    stream = b"".join(tokens)
    cuts = data.draw(st.lists(st.integers(0, len(stream))))
    assert parse(*pieces_of(stream, cuts)) == parse(stream)


def test_an_event_may_not_outgrow_the_limit():
    parser = EventParser(limit=100)
    for _ in range(8):
        assert parser.feed(b"data: 123456789\n") == []
    with pytest.raises(ModelError, match="larger than 100 bytes"):
        parser.feed(b"data: 123456789\n")


def test_a_line_may_not_outgrow_the_limit():
    parser = EventParser(limit=100)
    for _ in range(100):
        assert parser.feed(b"x") == []
    with pytest.raises(ModelError):
        parser.feed(b"x")


def test_events_and_comments_without_end_are_no_matter():
    parser = EventParser(limit=100)
    for _ in range(1000):
        assert parser.feed(b": ping\n") == []
        assert parser.feed(b"data: 0123456789\n\n") == [b"0123456789"]
