"""Requests and their replies over one inbox.

Every reply comes in on one wildcard subscription and is handed to whoever waits under the token that ends its
subject.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import nats.errors
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg

from atto.broker.alarms import Alarms
from atto.broker.hearing import subscribe
from atto.broker.nats_internals import closed_because, guard, on_closed
from atto.broker.reading import status
from atto.broker.refusals import MESSAGE_TOO_LARGE, ApiError, refused
from atto.broker.sending import sent
from atto.broker.turnstile import Turnstile
from atto.broker.wire import header_block
from atto.protocol.errors import BrokerUnavailable, ConnectionClosed, NoResponders

TIMEOUT = 5.0
"""Seconds to wait for a reply: a cluster that elects a leader pauses that long, rarely longer."""
_FRAME = len(b"NATS/1.0\r\n\r\n")
POSTED_LIMIT = 10_000
"""Messages whose replies may be outstanding at one time, of those that nobody waits for."""


class Requests:
    """`async with Requests(connection) as requests`. Does not own the connection.

    Whoever still waits for a reply at the end is told `BrokerUnavailable`. `turnstile`: for a crowd that
    speaks over the connection. `alarms`: for whoever waits for something over it.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection: Connection = guard(connection)
        self.turnstile = Turnstile(connection)
        self._inbox = connection.new_inbox()
        self._tokens = itertools.count()
        self.alarms = Alarms()
        self._requests: dict[str, _Request] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._posted: dict[str, Callable[[Msg], None]] = {}
        self._subscription: Any = None
        self._is_left = False
        self._closed_because: str | None = None
        self._forget_closing: Callable[[], None] = _nothing

    @property
    def is_closed(self) -> bool:
        """Whether no reply will come any more."""
        return self._is_left or self.connection.is_closed

    async def __aenter__(self) -> Self:
        try:
            self._subscription = await subscribe(self.connection, f"{self._inbox}.*", self._dispatch)
        except nats.errors.ConnectionClosedError:
            raise ConnectionClosed(
                f"the connection to the broker is closed: {closed_because(self.connection)}"
            ) from None
        self._forget_closing = on_closed(self.connection, self._closed)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_left = True
        self._forget_closing()
        with contextlib.suppress(nats.errors.Error):
            await self._subscription.unsubscribe()
        self._fail_all()

    def _closed(self, reason: str) -> None:
        """No reply will come any more, and no reconnect."""
        self._closed_because = reason
        self._fail_all()

    def _fail_all(self) -> None:
        for request in self._requests.values():
            request.settle(None)
        for waiting in list(self._waiting.values()):
            waiting.handler(None)

    def reconnected(self) -> None:
        """To be told of every reconnect: whoever waits for a reply over the lost connection need not."""
        current = self.connection.stats["reconnects"]
        self._posted.clear()
        for request in self._requests.values():
            if request.sent_over is not None and request.sent_over < current:
                request.settle(None)
        for waiting in list(self._waiting.values()):
            if waiting.sent_over is not None and waiting.sent_over < current:
                waiting.handler(None)

    async def post(
        self,
        subject: str,
        data: bytes,
        on_reply: Callable[[Msg], None],
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """A request that nobody waits for; `on_reply` is handed its reply, if ever there is one.

        Raises `BrokerRefused` for what is too large, `BrokerUnavailable` if it cannot even be sent.
        """
        token = self._new_token()
        self._posted[token] = on_reply
        if len(self._posted) > POSTED_LIMIT:
            del self._posted[next(iter(self._posted))]  # its reply was lost long ago
        reply = f"{self._inbox}.{token}"
        if not self._sent(subject, data, reply, headers):
            await self._send(subject, data, reply, headers)

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,  # noqa: ASYNC109
    ) -> bytes:
        """One request, one reply. Raises `NoResponders`, `BrokerUnavailable`."""
        token = self._new_token()
        pending = self._requests[token] = _Request(timeout, self._sent_over())
        self.alarms.set(pending)
        reply = f"{self._inbox}.{token}"
        try:
            if not self._sent(subject, data, reply, headers):
                await self._send(subject, data, reply, headers)
            message = await pending.reply
        except TimeoutError:
            raise BrokerUnavailable(f"no answer from {subject} within {timeout:g} s") from None
        finally:
            self.alarms.clear(pending)
            del self._requests[token]
        if message is None:
            raise self._lost(subject)
        if not message.data and status(message) == "503":
            raise NoResponders(f"nobody listens on {subject}")
        return message.data

    async def request_many(
        self, subject: str, data: bytes = b"", *, gap: float = TIMEOUT
    ) -> AsyncGenerator[Msg, None]:
        """One request, many replies; leave the iteration at the last one.

        Raises `NoResponders`, and `BrokerUnavailable` when no further reply came within `gap` seconds.
        """
        arrivals: asyncio.Queue[Msg | None] = asyncio.Queue()
        with self._token(arrivals.put_nowait) as inbox:
            await self._send(subject, data, inbox, None)
            while True:
                try:
                    async with asyncio.timeout(gap):
                        message = await arrivals.get()
                except TimeoutError:
                    raise BrokerUnavailable(f"no answer from {subject} within {gap:g} s") from None
                if message is None:
                    raise self._lost(subject)
                if not message.data and status(message) == "503":
                    raise NoResponders(f"nobody listens on {subject}")
                yield message

    async def send(self, subject: str, data: bytes, *, headers: Mapping[str, str] | None = None) -> None:
        """Publishes without waiting.

        Raises `BrokerRefused` for what is too large, `BrokerUnavailable` if it cannot even be sent.
        """
        if not self._sent(subject, data, "", headers):
            await self._send(subject, data, "", headers)

    def _sent(self, subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> bool:
        """Whether it is on its way, as nearly always."""
        block = b"" if headers is None else header_block(headers)
        return block is not None and sent(self.connection, subject, data, reply, block)

    async def _send(self, subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        limit = self.connection.max_payload
        size = len(data) if headers is None else len(data) + _size(headers)
        if size > limit:  # nats-py looks at the body alone, and the broker would hang up
            description = f"{size} bytes exceed the broker's limit of {limit}"
            raise refused(f"publish to {subject}", ApiError(400, MESSAGE_TOO_LARGE, description))
        try:
            await self.connection.publish(
                subject, data, reply=reply, headers=None if headers is None else dict(headers)
            )
        except nats.errors.ConnectionClosedError:
            raise self._lost(subject) from None
        except nats.errors.Error as error:
            raise BrokerUnavailable(f"cannot send to {subject}: {error}") from error

    def _lost(self, subject: str) -> BrokerUnavailable:
        if self._closed_because is not None:
            return ConnectionClosed(
                f"no answer from {subject}: the connection is closed: {self._closed_because}"
            )
        return BrokerUnavailable(f"the connection was lost, or closed, before {subject} answered")

    @contextlib.contextmanager
    def _token(self, handler: Callable[[Msg | None], None]) -> Generator[str, None, None]:
        token = self._wait(handler)
        try:
            yield f"{self._inbox}.{token}"
        finally:
            del self._waiting[token]

    def _wait(self, handler: Callable[[Msg | None], None]) -> str:
        """The token under which `handler` gets replies, until it is deleted."""
        token = self._new_token()
        self._waiting[token] = _Waiting(handler, self._sent_over())
        return token

    def _sent_over(self) -> int | None:
        """The how-manieth connection takes a request now; None: the next one will."""
        connection = self.connection
        return connection.stats["reconnects"] if connection.is_connected else None

    def _dispatch(self, message: Msg) -> None:
        # A direct read's messages keep the inbox as their subject too; their own travels in a header.
        token = message.subject.rpartition(".")[2]
        if (request := self._requests.get(token)) is not None:
            request.settle(message)
        elif (waiting := self._waiting.get(token)) is not None:
            waiting.handler(message)
        elif (posted := self._posted.pop(token, None)) is not None:
            posted(message)

    def _new_token(self) -> str:
        return format(next(self._tokens), "x")


class _Request:
    """Waits for its one reply until it is `due`. `sent_over`: the how-manieth connection took it; None if
    it was sent while there was none, so that it goes out over the next.
    """

    __slots__ = ("due", "reply", "sent_over")

    def __init__(self, timeout: float, sent_over: int | None) -> None:
        loop = asyncio.get_running_loop()
        self.due = loop.time() + timeout
        self.reply: asyncio.Future[Msg | None] = loop.create_future()
        self.sent_over = sent_over

    def settle(self, message: Msg | None) -> None:
        if not self.reply.done():
            self.reply.set_result(message)

    def ring(self) -> None:
        if not self.reply.done():
            self.reply.set_exception(TimeoutError())


class _Waiting(NamedTuple):
    """Who waits for replies. `sent_over`: as of a request."""

    handler: Callable[[Msg | None], None]
    sent_over: int | None


def _size(headers: Mapping[str, str]) -> int:
    """Bytes of a header block: its first line, four bytes besides each name and value, an empty line."""
    return _FRAME + sum(len(name) + len(value.encode()) + 4 for name, value in headers.items())


def _nothing() -> None:
    """To be called where there is nothing to be undone."""
