"""JetStream over one inbox: acknowledged publishes, leader reads, batched direct reads, API requests.

nats-py's own calls cost two to four times as much CPU, and its `publish_async` futures never end on an
error (its issue 985). Here every reply comes in on one wildcard subscription and is handed to whoever
waits under the token that ends its subject.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import nats.errors
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg

from atto.broker.alarms import Alarms
from atto.broker.hearing import subscribe
from atto.protocol.errors import BrokerRefused, BrokerUnavailable, NoResponders

TIMEOUT = 5.0
"""Seconds to wait for a reply: a cluster that elects a leader pauses that long, rarely longer."""

LAG_PAUSE = 0.02
"""Seconds before a replica that is behind is asked again."""
POSTED_LIMIT = 10_000
"""Messages whose acknowledgements may be outstanding at one time, of those that nobody waits for."""

_BATCH = 1000
_BATCH_BYTES = 4 << 20

# JetStream's error codes (server/errors.json of nats-server).
WRONG_LAST_SEQUENCE = 10071
SUBJECT_FULL = STREAM_FULL = 10077
FILTER_NOT_UNIQUE = 10100
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
NO_MESSAGE = 10037
MESSAGE_TOO_LARGE = 10054
# A cluster without a quorum or a leader, or with one that is about to take a message of the same id.
_NOT_NOW = frozenset({10008, 10009, 10118, 10119, 10158})


class PubAck(NamedTuple):
    """The broker has the message, at `sequence`; `duplicate`: it had it already."""

    sequence: int
    duplicate: bool


class Stored(NamedTuple):
    """A message as a stream holds it."""

    subject: str
    sequence: int
    data: bytes
    headers: Mapping[str, str]


class _ApiError(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _PubReply(msgspec.Struct):
    error: _ApiError | None = None
    seq: int = 0
    duplicate: bool = False


class _Message(msgspec.Struct):
    subject: str
    seq: int
    data: bytes = b""


class _GetReply(msgspec.Struct):
    error: _ApiError | None = None
    message: _Message | None = None


class _ErrorReply(msgspec.Struct):
    error: _ApiError | None = None


_pub_replies = msgspec.json.Decoder(_PubReply)
_get_replies = msgspec.json.Decoder(_GetReply)
_error_replies = msgspec.json.Decoder(_ErrorReply)
_encode = msgspec.json.encode


class JetStream:
    """`async with JetStream(connection) as jetstream`. Does not own the connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._inbox = connection.new_inbox()
        self._tokens = itertools.count()
        self._alarms = Alarms()
        self._requests: dict[str, _Request] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._posted: dict[str, Callable[[], None]] = {}
        self._subscription: Any = None

    async def __aenter__(self) -> Self:
        self._subscription = await subscribe(self.connection, f"{self._inbox}.*", self._dispatch)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(nats.errors.Error):
            await self._subscription.unsubscribe()

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

    async def publish(
        self,
        subject: str,
        data: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,  # noqa: ASYNC109 - the time-out of one round trip
    ) -> PubAck:
        """Returns once the stream has the message.

        Raises `NoResponders` if no stream takes the subject, `BrokerRefused`, and `BrokerUnavailable` if no
        answer came in time: the message may then be in the stream or still get there.
        """
        reply = _pub_replies.decode(await self.request(subject, data, headers=headers, timeout=timeout))
        if reply.error is not None:
            raise _refused(f"publish to {subject}", reply.error)
        return PubAck(reply.seq, reply.duplicate)

    async def publish_soon(self, subject: str, data: bytes, stored: Callable[[], None]) -> None:
        """Publishes without waiting; `stored` is called once the stream has it, if ever.

        Raises `BrokerRefused` for what is too large, `BrokerUnavailable` if it cannot even be sent.
        """
        token = self._new_token()
        self._posted[token] = stored
        if len(self._posted) > POSTED_LIMIT:
            del self._posted[next(iter(self._posted))]  # its reply was lost long ago
        await self._send(subject, data, f"{self._inbox}.{token}", None)

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
        self._alarms.set(pending)
        try:
            await self._send(subject, data, f"{self._inbox}.{token}", headers)
            message = await pending.reply
        except TimeoutError:
            raise BrokerUnavailable(f"no answer from {subject} within {timeout:g} s") from None
        finally:
            self._alarms.clear(pending)
            del self._requests[token]
        if message is None:
            raise _lost(subject)
        if not message.data and status(message) == "503":
            raise NoResponders(f"nobody listens on {subject}")
        return message.data

    async def api(self, name: str, request: Any = None, *, timeout: float = TIMEOUT) -> bytes:  # noqa: ASYNC109
        """A request to the JetStream API, as `STREAM.INFO.<stream>`. Raises `BrokerRefused` on an error."""
        data = b"" if request is None else _encode(request)
        reply = await self.request(f"$JS.API.{name}", data, timeout=timeout)
        error = _error_replies.decode(reply).error
        if error is not None:
            raise _refused(name, error)
        return reply

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of a subject, read from the stream's leader, so never a stale one. No headers."""
        data = await self.request(f"$JS.API.STREAM.MSG.GET.{stream}", _encode({"last_by_subj": subject}))
        reply = _get_replies.decode(data)
        if reply.error is not None:
            if reply.error.err_code == NO_MESSAGE:
                return None
            raise _refused(f"read of {subject}", reply.error)
        message = reply.message
        return None if message is None else Stored(message.subject, message.seq, message.data, {})

    async def at(self, stream: str, sequence: int) -> Stored | None:
        """The message at a sequence. A direct read, as `read`."""
        messages, _ = await self._direct(stream, {"seq": sequence, "batch": 1})
        return next((message for message in messages if message.sequence == sequence), None)

    async def read(self, stream: str, subject: str, *, start: int = 1) -> AsyncGenerator[Stored, None]:
        """The messages of a subject (wildcards allowed) from sequence `start` on, batch by batch.

        A direct read: any replica may answer, so the newest messages may be missing for a moment.
        """
        while True:
            request = {"seq": start, "batch": _BATCH, "max_bytes": _BATCH_BYTES, "next_by_subj": subject}
            messages, more = await self._direct(stream, request)
            for message in messages:
                yield message
            if not more or not messages:
                return
            start = messages[-1].sequence + 1

    async def read_to_end(self, stream: str, subject: str) -> AsyncGenerator[Stored, None]:
        """The messages of a subject (wildcards allowed), all that the stream's leader knows of now.

        Raises `BrokerUnavailable` if a replica that answers does not have them in time.
        """
        read = 0
        deadline = asyncio.get_running_loop().time() + TIMEOUT
        # Asked each time, since what was the newest may have been removed.
        while (newest := await self.last(stream, subject)) is not None and newest.sequence > read:
            if asyncio.get_running_loop().time() > deadline:
                raise BrokerUnavailable(f"the replicas of {stream} are behind their leader")
            async with contextlib.aclosing(self.read(stream, subject, start=read + 1)) as reading:
                async for stored in reading:
                    read = stored.sequence
                    yield stored
            if read >= newest.sequence:
                return
            await asyncio.sleep(LAG_PAUSE)

    async def read_last(self, stream: str, subjects: Iterable[str]) -> list[Stored]:
        """The last message of each subject that matches (wildcards allowed; up to 1,024 subjects)."""
        found: list[Stored] = []
        request: dict[str, Any] = {"batch": _BATCH, "max_bytes": _BATCH_BYTES, "multi_last": list(subjects)}
        while True:
            messages, more = await self._direct(stream, request)
            found += messages
            if not more or not messages:
                return found
            request["seq"] = messages[-1].sequence + 1

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
                    raise _lost(subject)
                if not message.data and status(message) == "503":
                    raise NoResponders(f"nobody listens on {subject}")
                yield message

    async def _direct(self, stream: str, request: Any) -> tuple[list[Stored], bool]:
        """One batch, and whether there is more."""
        messages: list[Stored] = []
        replies = self.request_many(f"$JS.API.DIRECT.GET.{stream}", _encode(request))
        async with contextlib.aclosing(replies):
            async for message in replies:
                headers = message.headers or {}
                match status(message):
                    case None:
                        subject, sequence = headers["Nats-Subject"], int(headers["Nats-Sequence"])
                        messages.append(Stored(subject, sequence, message.data, headers))
                    case "204":
                        return messages, int(headers.get("Nats-Num-Pending", "0")) > 0
                    case "404":
                        return messages, False
                    case code:
                        raise _refused(f"read of {stream}", _ApiError(int(code), 0, str(headers)))
        raise AssertionError  # the iteration ends by return or raise only

    async def _send(self, subject: str, data: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        try:
            await self.connection.publish(
                subject, data, reply=reply, headers=None if headers is None else dict(headers)
            )
        except nats.errors.MaxPayloadError:
            limit = self.connection.max_payload
            raise _refused(
                f"publish to {subject}",
                _ApiError(400, MESSAGE_TOO_LARGE, f"{len(data)} bytes exceed the broker's limit of {limit}"),
            ) from None
        except nats.errors.Error as error:
            raise BrokerUnavailable(f"cannot send to {subject}: {error}") from error

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
        elif (stored := self._posted.pop(token, None)) is not None and _is_stored(message):
            stored()

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


def _is_stored(message: Msg) -> bool:
    return bool(message.data) and _pub_replies.decode(message.data).error is None


def _lost(subject: str) -> BrokerUnavailable:
    return BrokerUnavailable(f"the connection was lost before {subject} answered")


def status(message: Msg) -> str | None:
    """The status of a reply that is not a message, as `408`; None for a message."""
    return None if message.headers is None else message.headers.get("Status")


def _refused(what: str, error: _ApiError) -> BrokerRefused | BrokerUnavailable:
    if error.err_code in _NOT_NOW:
        return BrokerUnavailable(f"{what}: {error.description} (error {error.err_code})")
    return BrokerRefused(
        f"{what}: {error.description} (error {error.err_code})",
        status=error.code,
        err_code=error.err_code,
        description=error.description,
    )
