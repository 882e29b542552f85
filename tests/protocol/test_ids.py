import re
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.protocol.errors import InvalidRunId, InvalidSessionId
from atto.protocol.ids import (
    MAX_ID_BYTES,
    _Clock,
    decode_run,
    decode_session,
    encode_run,
    encode_session,
    escape,
    new_run_id,
    run_id_of_sequence,
)
from tests.protocol.strategies import ids

TOKEN = re.compile(r"(?:[A-Za-z0-9_-]|=[0-9A-F]{2})+")
# nats-server: `.` separates tokens, `*` and `>` are wildcards, white space and NUL end a subject.
NATS_TOKEN = re.compile(r"[^\s.*>\x00]+")
# The keys that nats-py and the other clients accept (ADR-8 of NATS).
KV_KEY = re.compile(r"[-/_=.a-zA-Z0-9]+")


@given(ids())
def test_every_id_comes_back_from_its_token(text):
    assert decode_session(encode_session(text)) == text
    assert decode_run(encode_run(text)) == text


@given(ids())
def test_every_token_is_one_subject_token_and_a_key(text):
    token = encode_session(text)
    assert TOKEN.fullmatch(token)
    assert NATS_TOKEN.fullmatch(token)
    assert KV_KEY.fullmatch(token)
    assert not token.startswith("_kv")
    assert len(token) <= 3 * MAX_ID_BYTES


@given(ids(), ids())
def test_two_ids_never_share_a_token(one, other):
    assert (encode_session(one) == encode_session(other)) == (one == other)


@given(st.text(max_size=200) | st.from_regex(r"(?:[A-Za-z0-9_.*>-]|=[0-9A-Fa-f]{2}){1,140}", fullmatch=True))
def test_a_token_is_canonical_or_refused(token):
    try:
        session = decode_session(token)
    except InvalidSessionId:
        return
    assert encode_session(session) == token


@given(st.text())
def test_run_ids_follow_the_same_rules(text):
    try:
        token = encode_session(text)
    except InvalidSessionId:
        with pytest.raises(InvalidRunId):
            encode_run(text)
    else:
        assert encode_run(text) == token


@pytest.mark.parametrize(
    ("session", "token"),
    [
        ("user-123", "user-123"),
        ("ann@example.com", "ann=40example=2Ecom"),
        ("*", "=2A"),
        (">", "=3E"),
        ("a.b", "a=2Eb"),
        ("two words", "two=20words"),
        ("=", "=3D"),
        ("=2A", "=3D2A"),
        ("é", "=C3=A9"),
        ("🤖", "=F0=9F=A4=96"),
        ("\x00", "=00"),
        ("\r\n", "=0D=0A"),
        ("x" * 128, "x" * 128),
        ("é" * 64, "=C3=A9" * 64),
    ],
)
def test_awkward_ids_have_readable_tokens(session, token):
    assert encode_session(session) == token
    assert decode_session(token) == session


@pytest.mark.parametrize(
    ("session", "why"),
    [
        ("", "is empty"),
        ("x" * 129, "has 129 bytes"),
        ("é" * 65, "has 130 bytes"),
        ("x" * 5000, "has 5000 bytes"),
        ("🤖" * 33, "has 132 bytes"),
        ("\ud800", "lone surrogate"),
        ("x\udfff", "lone surrogate"),
    ],
)
def test_what_is_no_id_is_refused_with_a_reason(session, why):
    with pytest.raises(InvalidSessionId, match=f"session id .* {why}") as caught:
        encode_session(session)
    assert len(str(caught.value)) < 250
    str(caught.value).encode()
    with pytest.raises(InvalidRunId, match=f"run id .* {why}"):
        encode_run(session)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "*",
        ">",
        "a.b",
        "two words",
        "=2a",  # lower case
        "=41",  # plain, so never escaped
        "=",
        "=4",
        "=GG",
        "a=",
        "é",
        "=C3",  # half a character
        "=ED=A0=80",  # a surrogate
        "=C0=80",  # an overlong NUL
        "x" * 129,
        "x" * 5000,
        "=2A" * 129,
        "\ud800",
        "user-123\n",
    ],
)
def test_a_token_that_is_not_canonical_is_refused(token):
    with pytest.raises(InvalidSessionId, match="session token"):
        decode_session(token)
    with pytest.raises(InvalidRunId, match="run token"):
        decode_run(token)


@given(st.text(st.characters(), max_size=300))
def test_any_text_at_all_can_be_filed_under_a_token(text):
    filed = escape(text)
    assert NATS_TOKEN.fullmatch(filed)
    assert filed == "=" or TOKEN.fullmatch(filed)


@given(ids())
def test_an_id_is_filed_under_its_own_token(text):
    assert escape(text) == encode_session(text)


def test_a_new_run_id_is_a_uuid_of_version_7_and_of_now():
    before = time.time_ns() // 1_000_000
    run_id = uuid.UUID(new_run_id())
    after = time.time_ns() // 1_000_000
    assert run_id.version == 7
    assert run_id.variant == uuid.RFC_4122
    assert before <= run_id.int >> 80 <= after


def test_a_new_run_id_is_its_own_token():
    run_id = new_run_id()
    assert encode_run(run_id) == run_id


@pytest.mark.parametrize("clock", ["running", "standing still", "stepping back"])
def test_run_ids_of_a_process_are_distinct_and_in_order(clock, monkeypatch):
    now = time.time_ns()
    clocks = {
        "running": time.time_ns,
        "standing still": lambda: now,
        "stepping back": iter(range(now, 0, -1_000_000)).__next__,
    }
    monkeypatch.setattr("atto.protocol.ids._clock", _Clock())
    monkeypatch.setattr("atto.protocol.ids.time.time_ns", clocks[clock])
    made = [new_run_id() for _ in range(10_000)]
    assert len(set(made)) == len(made)
    assert made == sorted(made)


def test_run_ids_of_many_threads_are_distinct_and_each_threads_are_in_order():
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: [new_run_id() for _ in range(5000)], range(4)))
    assert all(ids == sorted(ids) for ids in made)
    assert len({run_id for ids in made for run_id in ids}) == 20_000


def test_a_process_that_was_forked_while_a_thread_made_an_id_makes_its_own():
    """Whoever held the lock is not there to let go of it. In a process of its own: this one has threads."""
    script = """
import os, signal
from atto.protocol import ids

with ids._clock._lock:
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        ids.new_run_id()
        os._exit(0)
raise SystemExit(os.waitpid(child, 0)[1])
"""
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


def test_forked_processes_make_different_ids():
    script = """
import os
from atto.protocol.ids import new_run_id

new_run_id()
children = []
for _ in range(2):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, " ".join(new_run_id() for _ in range(100)).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        children.append(set(said.read().split()))
    os.wait()
assert len(set.union(*children)) == 200
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@given(st.integers(1, 2**48 - 1), st.integers(0, 2**48 - 1))
def test_the_run_id_of_a_place_in_the_stream_is_always_the_same(sequence, timestamp):
    run_id = run_id_of_sequence(sequence, timestamp)
    assert run_id == run_id_of_sequence(sequence, timestamp)
    parsed = uuid.UUID(run_id)
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == timestamp
    assert int(run_id[-12:], 16) == sequence


@given(st.tuples(st.integers(1, 2**62 - 1), st.integers(0, 2**48 - 1)), st.integers(1, 2**62 - 1))
def test_two_places_in_the_stream_have_two_run_ids(place, other):
    sequence, timestamp = place
    same = run_id_of_sequence(sequence, timestamp) == run_id_of_sequence(other, timestamp)
    assert same == (sequence == other)
