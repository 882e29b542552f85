import json
import threading

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atto.protocol.codec import (
    MAX_DEPTH,
    check_depth,
    decode_batch,
    decode_cancel,
    decode_turn,
    encode,
    probe_run_id,
)
from atto.protocol.errors import InvalidTurn, UnsupportedVersion
from atto.protocol.events import EventBatch, RunStarted, TextDelta, UnknownEvent, is_terminal
from atto.protocol.messages import Message, TextPart
from atto.protocol.sessions import SnapshotPage
from atto.protocol.turns import Cancel, Turn
from tests.protocol import strategies

DECODERS = [decode_turn, decode_batch, decode_cancel]
every_decoder = pytest.mark.parametrize("decode", DECODERS)


@given(strategies.turns)
def test_a_turn_comes_back_as_it_was(turn):
    assert decode_turn(encode(turn)) == turn


@given(strategies.batches)
def test_an_event_batch_comes_back_as_it_was(batch):
    assert decode_batch(encode(batch)) == batch


@given(strategies.cancels)
def test_a_cancellation_comes_back_as_it_was(cancel):
    assert decode_cancel(encode(cancel)) == cancel


@given(strategies.messages)
def test_a_message_comes_back_as_it_was(message):
    assert msgspec.json.decode(encode(message), type=Message) == message


@given(strategies.snapshot_pages)
def test_a_page_of_a_snapshot_comes_back_as_it_was(page):
    assert msgspec.json.decode(encode(page), type=SnapshotPage) == page


ENDINGS = {"run_completed", "run_failed", "run_cancelled", "run_suspended", "run_absorbed"}


@given(strategies.events)
def test_exactly_the_endings_are_terminal(event):
    kind = json.loads(encode(event))["type"]
    assert is_terminal(event) == (kind in ENDINGS)


@given(strategies.turns | strategies.batches | strategies.cancels)
def test_what_travels_is_one_line_of_json_for_any_language(value):
    data = encode(value)
    assert isinstance(json.loads(data.decode(), parse_constant=pytest.fail), dict)
    assert b"\n" not in data


def test_the_smallest_turn_is_an_input():
    assert decode_turn(b'{"input":"hi"}') == Turn(input="hi")
    assert encode(Turn(input="hi")) == b'{"input":"hi"}'


def test_an_empty_cancellation_has_no_reason():
    assert decode_cancel(b"") == Cancel()


def with_extra_fields(value, extra):
    """The value with `extra` in every object that the protocol owns, under names that it does not use."""
    if isinstance(value, dict):
        return {**{key: with_extra_fields(item, extra) for key, item in value.items()}, "x_new": extra}
    if isinstance(value, list):
        return [with_extra_fields(item, extra) for item in value]
    return value


@given(st.lists(strategies.deltas, max_size=3).map(tuple), strategies.json_values)
def test_fields_that_a_newer_release_added_to_events_are_ignored(events, extra):
    batch = EventBatch(events=events)
    assert decode_batch(encode(with_extra_fields(msgspec.to_builtins(batch), extra))) == batch


@given(strategies.words, strategies.json_values)
def test_fields_that_a_newer_release_added_to_turns_are_ignored(text, extra):
    turn = Turn(input=(TextPart(text),))
    assert decode_turn(encode(with_extra_fields(msgspec.to_builtins(turn), extra))) == turn


@given(
    st.lists(strategies.events, max_size=2),
    st.text(max_size=20).filter(lambda kind: kind not in KNOWN),
    strategies.json_objects,
    st.lists(strategies.events, max_size=2),
)
def test_an_event_of_a_newer_type_is_kept_as_unknown_among_the_others(before, kind, body, after):
    newer = {**body, "type": kind, "seq": 7}
    data = encode({"events": [*before, newer, *after], "attempt": 2, "since": 3})
    unknown = UnknownEvent(seq=7, kind=kind, body=newer)
    assert decode_batch(data) == EventBatch(events=(*before, unknown, *after), attempt=2, since=3)


KNOWN = {
    "run_started",
    "text_delta",
    "reasoning_delta",
    "model_completed",
    "tool_started",
    "tool_completed",
    "step_restarted",
    "agent_event",
    "run_completed",
    "run_failed",
    "run_cancelled",
    "run_suspended",
    "unknown",
}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "text_delta", "seq": 1},
        {"type": "text_delta", "seq": 1, "step": 1, "text": 5},
        {"type": "newer"},
        {"type": "newer", "seq": "1"},
        {"seq": 1},
        {"type": 5, "seq": 1},
        5,
        None,
        [],
    ],
)
def test_a_malformed_event_makes_the_batch_invalid(event):
    delta = {"type": "text_delta", "seq": 1, "step": 1, "text": "hi"}
    with pytest.raises(InvalidTurn, match="event batch is not valid: "):
        decode_batch(encode({"events": [delta, event]}))


@given(strategies.json_values.filter(lambda version: version != 1), strategies.json_values)
def test_a_version_that_is_not_known_is_told_apart_from_what_is_malformed(version, body):
    for decode in DECODERS:
        with pytest.raises(InvalidTurn) as caught:
            decode(encode({"input": body, "events": body, "reason": body, "v": version}))
        if isinstance(version, int) and not isinstance(version, bool):
            assert isinstance(caught.value, UnsupportedVersion)
            assert f"version {version}" in str(caught.value)


def test_an_unknown_version_is_named_even_if_nothing_else_can_be_read():
    with pytest.raises(UnsupportedVersion, match="schema version 3; this release reads version 2"):
        decode_turn(b'{"v":3,"inputs":{"parts":[]}}')
    with pytest.raises(UnsupportedVersion, match="schema version 3"):
        decode_batch(b'{"v":3,"events":[{"type":"newer","seq":1}]}')


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "truncated"),
        (b"hi", "malformed"),
        (b"{}", "`input` is missing"),
        (b"[]", "Expected `object`"),
        (b"null", "Expected `object`"),
        (b'{"input":""}', "`input` is missing or empty"),
        (b'{"input":[]}', "`input` is missing or empty"),
        (b'{"input":5}', r"got `int` - at `\$.input`"),
        (b'{"input":"hi"} trailing', "trailing"),
        (b'{"input":"\xff"}', "utf-8"),
        (b'{"input":"\\ud800 and more"}', "surrogate"),
        (b'{"input":"hi","run_id":5}', r"at `\$.run_id`"),
        (b'{"input":"hi","metadata":{"a":1}}', r"at `\$.metadata"),
        (b'{"input":"hi","expires":"tomorrow"}', r"at `\$.expires`"),
        (b'{"input":"hi","expires":"2030-01-01T00:00:00"}', "needs an offset from UTC"),
        (b'{"input":[{"type":"tool_call","id":"1","name":"x"}]}', "Invalid value 'tool_call'"),
        (b'{"input":[{"type":"image"}]}', "either `url` or `data`"),
        (b'{"input":[{"type":"image","url":"u","data":"","media_type":"image/png"}]}', "not both"),
        (b'{"input":[{"type":"file","data":"AAAA"}]}', "media_type"),
        (b'{"input":[{"type":"file","data":"*","media_type":"text/plain"}]}', "base64"),
        (b'{"input":"hi","v":' + b"9" * 5000 + b"}", "out of range"),
        (b'{"input":[{"type":"text","text":"hi","native":1e999}]}', "out of range"),
    ],
)
def test_a_malformed_turn_is_refused_with_a_reason(data, why):
    with pytest.raises(InvalidTurn, match=f"turn is not valid: .*{why}"):
        decode_turn(data)


fragments = st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b"\\", b":", b",", b"1", b"e9", b"null", b'"v"', b'"input"']
)
hostile = st.binary(max_size=60) | st.lists(fragments, max_size=400).map(b"".join)


@given(hostile)
@example(b"[" * 100_000)
@example(b'{"events":[{"type":"newer","seq":1,"x":' + b"[" * 50_000 + b"]" * 50_000 + b"}]}")
@example(b'{"events":' + b'{"a":' * 50_000)
@example(b'{"input":' + b'[{"content":' * 50_000)
@example(b'{"input":"hi","v":' + b"[" * 50_000 + b"]" * 50_000 + b"}")
def test_no_bytes_whatever_raise_anything_but_invalid_turn(data):
    for decode in DECODERS:
        try:
            decode(data)
        except InvalidTurn as error:
            str(error).encode()
    probe_run_id(data)


@every_decoder
def test_depth_is_checked_before_a_small_stack_could_overflow(decode):
    hostile = [
        b"[" * 200_000,
        b'{"events":[{"type":"newer","seq":1,"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}]}",
        b'{"input":"hi","v":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    ]
    refused = []

    def attempt() -> None:
        for data in hostile:
            try:
                decode(data)
            except InvalidTurn as error:
                refused.append(str(error))

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=attempt)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert refused == [f"JSON is nested more than {MAX_DEPTH} levels deep"] * 3


def naive_depth(document: str) -> int:
    """Character by character, as the grammar of JSON has it."""
    deepest = depth = 0
    in_string = escaped = False
    for character in document:
        if in_string:
            in_string = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def is_too_deep(data: bytes) -> bool:
    try:
        check_depth(data)
    except InvalidTurn:
        return True
    return False


tricky_texts = st.text(st.sampled_from('[]{}"\\/ aé\n'), max_size=150)


@st.composite
def nested_documents(draw):
    """Valid JSON around the limit, with brackets, quotes and escapes in its strings."""
    text = draw(tricky_texts)
    value: object = text
    for kind in draw(st.lists(st.sampled_from(["list", "dict", "both"]), min_size=90, max_size=110)):
        value = {"list": [text, value, text], "dict": {text: value}, "both": [[text], value, {"k": text}]}[
            kind
        ]
    return value


@given(nested_documents(), st.booleans())
def test_depth_is_that_of_the_grammar(document, ascii_only):
    text = json.dumps(document, ensure_ascii=ascii_only)
    assert is_too_deep(text.encode()) == (naive_depth(text) > MAX_DEPTH)


@given(hostile.filter(lambda data: data.isascii()))
def test_depth_is_that_of_the_grammar_also_where_it_is_violated(data):
    assert is_too_deep(data) == (naive_depth(data.decode()) > MAX_DEPTH)


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1])
def test_the_limit_is_exact(depth):
    assert is_too_deep(b"[" * depth + b"]" * depth) == (depth > MAX_DEPTH)
    assert is_too_deep(b'{"":' * depth + b"1" + b"}" * depth) == (depth > MAX_DEPTH)


@pytest.mark.parametrize(
    "data",
    [
        b'"' + b'\\"' * 500_000 + b"[" * 200,
        b"[" * 100 + b'"' + b'\\"' * 500_000,
        b"[" * 100 + b'"' + b"\\" * 1_000_001,
        b'["",' * 50 + b'""' * 300_000 + b"]{" * 51,
        b"[]" * 500_000,
    ],
    ids=["open string", "open string at depth", "backslashes", "many strings", "many brackets"],
)
@pytest.mark.timeout(5)
def test_a_megabyte_made_to_be_slow_is_scanned_in_linear_time(data):
    check_depth(data)


@given(strategies.ids(), strategies.json_values)
def test_the_run_id_of_a_turn_that_is_not_valid_can_be_made_out(run_id, rest):
    assert probe_run_id(encode({"run_id": run_id, "input": rest, "v": rest})) == run_id


@pytest.mark.parametrize("data", [b"", b"hi", b"[]", b"{}", b'{"run_id":5}', b'{"run_id":"a"', b"[" * 5000])
def test_where_no_run_id_can_be_made_out_there_is_none(data):
    assert probe_run_id(data) is None


def test_an_attempts_first_batch_reads_as_documented():
    data = (
        b'{"v":2,"attempt":2,"since":4,"events":['
        b'{"type":"run_started","seq":4,"time":"2026-01-02T03:04:05Z","agent":"a","attempt":2},'
        b'{"type":"text_delta","seq":5,"step":1,"text":"hi"}]}'
    )
    batch = decode_batch(data)
    assert [type(event) for event in batch.events] == [RunStarted, TextDelta]
    assert encode(batch) == data


def test_an_asked_agent_may_say_what_a_newer_release_added():
    newer = {
        "type": "agent_event",
        "seq": 1,
        "step": 1,
        "call_id": "c",
        "agent": "a",
        "event": {"type": "sung"},
    }
    unknown = UnknownEvent(seq=1, kind="agent_event", body=newer)
    assert decode_batch(encode({"events": [newer]})) == EventBatch(events=(unknown,))
