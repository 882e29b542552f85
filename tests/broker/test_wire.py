"""Lines and header blocks of any bytes are read; a header of a producer is never taken for a status."""

from hypothesis import given
from hypothesis import strategies as st

from atto.broker.wire import StatusHeaders, read_arrival, read_headers, readable

_part = st.binary(min_size=1, max_size=30).map(lambda raw: raw.replace(b" ", b"").replace(b"\n", b"") or b"x")


@given(_part, _part | st.just(b""), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_line_is_taken_apart_at_its_spaces_only(subject: bytes, reply: bytes, headers: int, body: int):
    target = subject + b" 7" + (b" " + reply if reply else b"")
    assert read_arrival(b"MSG %s %d" % (target, body)) == (7, subject, reply, 0, body)
    assert read_arrival(b"HMSG %s %d %d" % (target, headers, headers + body)) == (
        *(7, subject, reply),
        *(headers, headers + body),
    )


@given(st.binary(max_size=200))
def test_any_block_is_read(block: bytes):
    headers = read_headers(block)
    assert headers is None or all(name.isascii() and name for name in headers)
    if isinstance(headers, StatusHeaders):
        assert block.startswith(b"NATS/1.0 ")


def test_a_header_named_status_is_no_status():
    headers = read_headers(b"NATS/1.0\r\nStatus: 404\r\nX: y\r\n\r\n")
    assert headers == {"Status": "404", "X": "y"}
    assert not isinstance(headers, StatusHeaders)


def test_the_brokers_own_lines_are_statuses():
    heartbeat = read_headers(b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 12\r\n\r\n")
    assert isinstance(heartbeat, StatusHeaders)
    assert heartbeat.code == "100"
    assert heartbeat == {"Status": "100", "Description": "Idle Heartbeat", "Nats-Last-Consumer": "12"}
    assert getattr(read_headers(b"NATS/1.0 503\r\n\r\n"), "code", None) == "503"


def test_of_two_headers_of_a_name_the_last_one_counts_which_is_the_brokers():
    assert read_headers(b"\xff\r\nNats-Sequence: 1\r\nNats-Sequence: 2\r\n\r\n") == {"Nats-Sequence": "2"}


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_different_bytes_that_are_no_text_stay_different(one: bytes, other: bytes):
    if b"\\" not in one + other:
        assert (readable(one) == readable(other)) == (one == other)
