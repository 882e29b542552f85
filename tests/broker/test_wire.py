"""Lines and header blocks of any bytes are read; a header of a producer is never taken for a status."""

from hypothesis import given
from hypothesis import strategies as st

from atto.broker.wire import StatusHeaders, header_block, read_arrival, read_headers, readable

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


_names = st.from_regex(r"[!#-9;-~]{1,20}", fullmatch=True)
_values = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20)


@given(st.dictionaries(_names, _values, min_size=1, max_size=4))
def test_headers_are_read_as_they_were_written(headers: dict[str, str]):
    block = header_block(headers)
    assert block is not None
    assert read_headers(block) == {name: value.encode().strip().decode() for name, value in headers.items()}


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=5), min_size=1, max_size=3))
def test_no_header_brings_another_one_with_it(headers: dict[str, str]):
    try:
        block = header_block(headers)
    except UnicodeEncodeError:
        return
    assert block is None or block.count(b"\r") == block.count(b"\n") == len(headers) + 2
