"""Messages are handed on whole and in order, however the bytes of a connection are cut into pieces."""

import asyncio

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.protocol.parser import Parser

from atto.broker.nats_internals import Guarded, guard
from atto.broker.reading import Sink, status, subscribe_sink
from atto.broker.sending import sent
from atto.broker.server import EmbeddedBroker
from atto.broker.wire import header_block

SINK, PLAIN = 1, 2
_part = st.binary(min_size=1, max_size=12).map(lambda raw: raw.translate(None, b" \n") or b"x")


class _Subscription:
    def __init__(self, future: object) -> None:
        self._future = future


@st.composite
def _messages(draw: st.DrawFn) -> list[tuple[int, bytes, bytes, bytes, bytes]]:
    """Subscription, subject, reply, headers, body."""
    message = st.tuples(
        st.sampled_from([SINK, PLAIN]),
        _part,
        _part | st.just(b""),
        st.just(b"") | st.binary(min_size=1, max_size=20),
        st.binary(max_size=30) | st.just(b"MSG a 1 5\r\n"),
    )
    return draw(st.lists(message, max_size=6))


def _written(sid: int, subject: bytes, reply: bytes, block: bytes, body: bytes) -> bytes:
    target = b"%b %d " % (subject, sid) + (reply + b" " if reply else b"")
    size = len(block) + len(body)
    line = b"HMSG %b%d %d" % (target, len(block), size) if block else b"MSG %b%d" % (target, size)
    return line + b"\r\n" + block + body + b"\r\n"


class _Heard:
    """A connection that is not open, and what its parser hands on."""

    def __init__(self, connection: Connection) -> None:
        self.plain: list[object] = []
        self.messages: list[Msg] = []
        self.connection = connection
        connection._subs[SINK] = _Subscription(Sink(self.messages.append))  # pyright: ignore[reportArgumentType]
        connection._subs[PLAIN] = _Subscription(None)  # pyright: ignore[reportArgumentType]
        self.pongs = 0

        async def process(sid, subject, reply, data, headers):
            self.plain.append((sid, subject, reply, headers or b"", data))

        async def pong():
            self.pongs += 1

        connection._process_msg = process  # pyright: ignore[reportAttributeAccessIssue]
        connection._process_pong = pong

    @property
    def blocks(self) -> list[object]:
        return [(message._block, message.data) for message in self.messages]  # pyright: ignore[reportAttributeAccessIssue]


@given(_messages(), st.lists(st.integers(0, 400), max_size=4), st.lists(st.integers(0, 6), max_size=2))
async def test_any_pieces_give_the_same_messages(messages, cuts, pongs):
    heard = _Heard(Guarded())
    written = [_written(*message) for message in messages]
    for at in pongs:
        written.insert(at, b"PONG\r\n")
    stream = b"".join(written)
    ends = sorted(min(cut, len(stream)) for cut in cuts)
    for begin, end in zip([0, *ends], [*ends, len(stream)], strict=True):
        await heard.connection._ps.parse(stream[begin:end])
    assert heard.plain == [message for message in messages if message[0] == PLAIN]
    assert heard.blocks == [(block, body) for sid, _, _, block, body in messages if sid == SINK]
    assert heard.pongs == len(pongs)
    assert heard.connection.stats["in_msgs"] == len(heard.messages)
    assert not heard.connection._ps.buf


@given(_messages().filter(len), st.data())
async def test_a_connection_is_taken_over_in_the_middle_of_a_message(messages, data):
    """nats-py's own parser has read its line already, and waits for the body."""
    messages = [(sid, b"subject", reply and b"reply", block, body) for sid, _, reply, block, body in messages]
    stream = b"".join(_written(*message) for message in messages)
    cut = data.draw(st.integers(0, len(stream)))
    connection = Connection()
    heard = _Heard(connection)
    assert type(connection._ps) is Parser
    connection._subs = {}  # whoever listens comes later
    await connection._ps.parse(stream[:cut])
    handed_on = len(heard.plain)
    heard = _Heard(guard(connection))
    await connection._ps.parse(stream[cut:])
    left = messages[handed_on:]
    assert heard.plain == [message for message in left if message[0] == PLAIN]
    assert heard.blocks == [(block, body) for sid, _, _, block, body in left if sid == SINK]


async def _arrived(heard: list[Msg], count: int) -> list[Msg]:
    """`flush` says nothing of them: its ping overtakes what is about to be sent."""
    async with asyncio.timeout(20):
        while len(heard) < count:
            await asyncio.sleep(0.001)
    return heard


async def test_headers_are_read_when_they_are_asked_for(broker: EmbeddedBroker, namespace: str):
    connection = guard(await nats.connect(broker.url))
    try:
        heard: list[Msg] = []
        await subscribe_sink(connection, namespace, heard.append)
        await connection.publish(namespace, b"x", headers={"A": "1", "Status": "404"})
        await connection.publish(namespace, b"y")
        first, second = await _arrived(heard, 2)
        assert first.headers == {"A": "1", "Status": "404"}
        assert first.headers is first.headers
        assert status(first) is None
        assert (second.headers, status(second)) == (None, None)
        assert "A" in repr(first)
    finally:
        await connection.close()


@pytest.mark.parametrize("block", [b"", header_block({"A": "ä", "B": "2"})])
async def test_what_is_sent_arrives_as_if_it_was_published(
    broker: EmbeddedBroker, namespace: str, block: bytes
):
    connection = guard(await nats.connect(broker.url))
    try:
        heard: list[Msg] = []
        await subscribe_sink(connection, namespace, heard.append)
        assert sent(connection, namespace, b"one", "reply", block)
        await connection.publish(namespace, b"two")
        assert sent(connection, namespace, b"")
        assert [(message.data, message.reply) for message in await _arrived(heard, 3)] == [
            (b"one", "reply"),
            (b"two", ""),
            (b"", ""),
        ]
        assert heard[0].headers == ({"A": "ä", "B": "2"} if block else None)
        assert connection.stats["out_msgs"] == 3
        assert not sent(connection, namespace, bytes(connection.max_payload + 1))
    finally:
        await connection.close()
    assert not sent(connection, namespace, b"too late")
