"""JetStream: acknowledged publishes, leader reads, batched direct reads, API requests.

nats-py's own calls cost two to four times as much CPU, and its `publish_async` futures never end on an error
(its issue 985).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec
from nats.aio.msg import Msg

from atto.broker.reading import status
from atto.broker.refusals import NO_MESSAGE, ApiError, refused
from atto.broker.refusals import refused as error_of
from atto.broker.requests import TIMEOUT, Requests
from atto.protocol.errors import BrokerRefused, BrokerUnavailable, NoResponders

LAG_PAUSE = 0.02
"""Seconds before a replica that is behind is asked again."""

_BATCH = 1000
_BATCH_BYTES = 4 << 20


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


class _PubReply(msgspec.Struct):
    error: ApiError | None = None
    seq: int = 0
    duplicate: bool = False


class _Message(msgspec.Struct):
    subject: str
    seq: int
    data: bytes = b""


class _GetReply(msgspec.Struct):
    error: ApiError | None = None
    message: _Message | None = None


class _ErrorReply(msgspec.Struct):
    error: ApiError | None = None


_T = TypeVar("_T", _PubReply, _GetReply, _ErrorReply)

_pub_replies = msgspec.json.Decoder(_PubReply)
_get_replies = msgspec.json.Decoder(_GetReply)
_error_replies = msgspec.json.Decoder(_ErrorReply)
_encode = msgspec.json.encode


class JetStream(Requests):
    """`async with JetStream(connection) as jetstream`. Does not own the connection."""

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
        answer = await self.request(subject, data, headers=headers, timeout=timeout)
        reply = _decoded(_pub_replies, answer, f"publish to {subject}")
        if reply.error is not None:
            raise refused(f"publish to {subject}", reply.error)
        return PubAck(reply.seq, reply.duplicate)

    async def publish_soon(
        self,
        subject: str,
        data: bytes,
        stored: Callable[[], None],
        *,
        headers: Mapping[str, str] | None = None,
        refused: Callable[[BrokerRefused | BrokerUnavailable], None] | None = None,
    ) -> None:
        """Publishes without waiting; `stored` is called once the stream has it, if ever, and `refused` if it
        says that it does not take it.

        Raises `BrokerRefused` for what is too large, `BrokerUnavailable` if it cannot even be sent.
        """

        def on_reply(reply: Msg) -> None:
            try:
                error = _pub_replies.decode(reply.data).error if reply.data else None
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return  # not the broker's: as if nothing had come
            if not reply.data:
                if refused is not None:
                    refused(NoResponders(f"nobody listens on {subject}"))
            elif error is None:
                stored()
            elif refused is not None:
                refused(error_of(f"publish to {subject}", error))

        await self.post(subject, data, on_reply, headers=headers)

    async def api(self, name: str, request: Any = None, *, timeout: float = TIMEOUT) -> bytes:  # noqa: ASYNC109
        """A request to the JetStream API, as `STREAM.INFO.<stream>`. Raises `BrokerRefused` on an error."""
        data = b"" if request is None else _encode(request)
        reply = await self.request(f"$JS.API.{name}", data, timeout=timeout)
        error = _decoded(_error_replies, reply, name).error
        if error is not None:
            raise refused(name, error)
        return reply

    async def last(self, stream: str, subject: str) -> Stored | None:
        """The last message of a subject, read from the stream's leader, so never a stale one. No headers."""
        data = await self.request(f"$JS.API.STREAM.MSG.GET.{stream}", _encode({"last_by_subj": subject}))
        reply = _decoded(_get_replies, data, f"read of {subject}")
        if reply.error is not None:
            if reply.error.err_code == NO_MESSAGE:
                return None
            raise refused(f"read of {subject}", reply.error)
        message = reply.message
        return None if message is None else Stored(message.subject, message.seq, message.data, {})

    async def at(self, stream: str, sequence: int) -> Stored | None:
        """The message at a sequence, whatever number that is. A direct read, as `read`."""
        if not 0 < sequence < 1 << 64:
            return None
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

    async def _direct(self, stream: str, request: Any) -> tuple[list[Stored], bool]:
        """One batch, and whether there is more."""
        messages: list[Stored] = []
        replies = self.request_many(f"$JS.API.DIRECT.GET.{stream}", _encode(request))
        async with contextlib.aclosing(replies):
            async for message in replies:
                headers = message.headers or {}
                stored = _stored(message.data, headers)
                if stored is not None:
                    messages.append(stored)
                    continue
                match status(message):
                    case "204":
                        return messages, headers.get("Nats-Num-Pending", "0") != "0"
                    case "404":
                        return messages, False
                    case code:
                        answer = headers.get("Description") or f"an unreadable answer: {dict(headers)}"
                        raise refused(f"read of {stream}", ApiError(int(code or 0), 0, answer))
        raise AssertionError  # the iteration ends by return or raise only


def _decoded(decoder: msgspec.json.Decoder[_T], reply: bytes, what: str) -> _T:
    """Whoever may publish to an inbox may answer in the broker's place."""
    try:
        return decoder.decode(reply)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BrokerRefused(
            f"{what}: the answer is not one of JetStream's: {error}",
            status=0,
            err_code=0,
            description="unreadable answer",
        ) from None


def _stored(data: bytes, headers: Mapping[str, str]) -> Stored | None:
    """A message of a stream, whatever its producer made of its headers; None for a status.

    The broker adds the message's place after the producer's own headers, and to no status.
    """
    subject, sequence = headers.get("Nats-Subject"), headers.get("Nats-Sequence", "")
    if subject is None or not sequence.isdecimal():
        return None
    return Stored(subject, int(sequence), data, headers)
