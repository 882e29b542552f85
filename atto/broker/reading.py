"""What arrives over a connection: read whatever its bytes are, and handed on as it is parsed.

nats-py takes some bytes of a subject for spaces, and several calls for each message. Here one for a `Sink`
is one call, and its headers are read when somebody looks at them.
"""
# pyright: reportPrivateUsage=false

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any, cast

import nats.errors
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.protocol.parser import AWAITING_CONTROL_LINE, AWAITING_MSG_PAYLOAD, Parser

from atto.broker.wire import StatusHeaders, read_arrival, read_headers, readable

_LONGEST_LINE = 1 << 20  # bytes: INFO names all servers of a cluster
_END = b"\r\n"
_ARRIVALS = (b"MSG ", b"HMSG ")

_Message = tuple[int, bytes, bytes, bytes, bytes | None]
"""As `_process_msg` of nats-py takes it."""

_log = logging.getLogger("atto.broker")


class Arrived(Msg):
    """A message whose headers are read when they are asked for: hardly any are."""

    def __init__(self, client: Connection, subject: bytes, reply: bytes, data: bytes, block: bytes) -> None:
        self._client = client  # pyright: ignore[reportIncompatibleUnannotatedOverride]
        try:
            self.subject = subject.decode()
            self.reply = reply.decode()
        except UnicodeDecodeError:
            self.subject, self.reply = readable(subject), readable(reply)
        self.data = data
        self._block = block

    @property
    def headers(self) -> dict[str, str] | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The last one of each name; None if there are none."""
        if not self._block:
            return None
        headers = self.__dict__.get("_headers")
        if headers is None:
            headers = self._headers = read_headers(self._block)
        return headers


class Sink:
    """Stands where nats-py has the future of a request: it is handed every message, there and then.

    A subscription with a callback has a task and a queue of its own instead, which cost a caller a tenth of
    its CPU (measured, nats-py 2.16), for each run that is listened to is a subscription.
    """

    __slots__ = ("_take",)

    def __init__(self, take: Callable[[Msg], None]) -> None:
        self._take = take

    def cancelled(self) -> bool:
        """As a future's: it never is."""
        return False

    def set_result(self, message: Msg) -> None:
        """As a future's, any number of times."""
        try:
            self._take(message)
        except Exception:  # noqa: BLE001 - whatever it is, the next message is another matter
            # Raised into the connection's reader, it would end the connection.
            _log.exception("a message on %s could not be handled", message.subject)


async def subscribe_sink(connection: Connection, subject: str, take: Callable[[Msg], None]) -> Any:
    """The subscription, to be ended by its `unsubscribe`."""
    return await connection.subscribe(subject, future=cast("asyncio.Future[Msg]", Sink(take)))


def status(message: Msg) -> str | None:
    """The status of a reply that is not a message, as `408`; None for a message."""
    headers: object = message.headers
    return headers.code if isinstance(headers, StatusHeaders) else None


class GuardedParser(Parser):
    """Reads lines as the broker writes them, which separates their parts by spaces only."""

    nc: Any

    def take_over(self) -> None:
        """From nats-py's own parser, which may have read the line of a message and wait for its body."""
        if self.state == AWAITING_MSG_PAYLOAD:
            begun, size = self.msg_arg, self.header_needed
            word = b"HMSG" if size else b"MSG"
            sizes = b"%d %d" % (size, self.needed) if size else b"%d" % self.needed
            reply = begun["reply"] + b" " if begun["reply"] else b""
            self.buf[:0] = b"%b %b %d %b%b\r\n" % (word, begun["subject"], begun["sid"], reply, sizes)
            self.state = AWAITING_CONTROL_LINE
            self.header_needed = 0

    async def parse(self, data: bytes = b"") -> None:
        """Hands on all that is whole by now; the rest waits for more."""
        buf = self.buf
        buf += data
        while self.buf is buf:  # not, once the connection is another one
            read, other = self._handed_on(buf)
            del buf[:read]
            if other is None:
                return
            if isinstance(other, bytes):
                await self._obey(other)
            else:
                await self.nc._process_msg(*other)

    def _handed_on(self, buf: bytearray) -> tuple[int, bytes | _Message | None]:
        """How much of `buf` was read: messages for sinks, up to something else, which is returned."""
        nc = self.nc
        subscriptions, stats = nc._subs, nc.stats
        at, size = 0, len(buf)
        while at < size:
            end = buf.find(_END, at)
            if end < 0:
                if size - at > _LONGEST_LINE:
                    raise nats.errors.ProtocolError
                break
            line = bytes(buf[at:end])
            if not line.startswith(_ARRIVALS):
                return end + 2, line
            try:
                sid, subject, reply, split, length = read_arrival(line)
            except ValueError as error:
                raise nats.errors.ProtocolError from error
            begin = end + 2
            end = begin + length
            if end + 2 > size:
                break
            at = end + 2
            body = bytes(buf[begin + split : end])
            block = bytes(buf[begin : begin + split]) if split else b""
            subscription = subscriptions.get(sid)
            sink = None if subscription is None else subscription._future
            if type(sink) is not Sink:
                return at, (sid, subject, reply, body, block or None)
            stats["in_msgs"] += 1
            stats["in_bytes"] += length - split
            sink.set_result(Arrived(nc, subject, reply, body, block))
        return at, None

    async def _obey(self, line: bytes) -> None:
        word, _, rest = line.partition(b" ")
        match word:
            case b"PING":
                await self.nc._process_ping()
            case b"PONG":
                await self.nc._process_pong()
            case b"-ERR":
                await self.nc._process_err(readable(rest.strip()).lower())
            case b"INFO":
                try:
                    info = json.loads(rest)
                except ValueError as error:
                    raise nats.errors.ProtocolError from error
                await self.nc._process_info(info)
            case b"+OK":
                pass
            case _:
                raise nats.errors.ProtocolError
