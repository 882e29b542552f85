"""The dead-letter stream: turns that could not be run, as they came, with the reason in their headers."""

import contextlib
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from atto.broker.connection import DEFAULT_SERVER, connected
from atto.broker.jetstream import JetStream, Stored
from atto.broker.refusals import ALREADY_DELETED, MESSAGE_TOO_LARGE
from atto.protocol.codec import check_depth
from atto.protocol.errors import (
    BrokerRefused,
    DeadLetterUnusable,
    InvalidSessionId,
    InvalidTurn,
    NoResponders,
    TopologyMissing,
)
from atto.protocol.ids import decode_session, message_id, run_id_of_sequence
from atto.protocol.subjects import Subjects
from atto_workers.delivery import Delivery, Problem

CODE = "Atto-Code"
REASON = "Atto-Reason"
SUBJECT = "Atto-Subject"
SEQUENCE = "Atto-Sequence"
RUN = "Atto-Run"
TIME = "Atto-Time"
TRUNCATED = "Atto-Truncated"

_REASON_LIMIT = 1000
_SUBJECT_LIMIT = 16_384  # a broker takes lines of 4,096 bytes, of which each may be shown as four
_FRAME = 16  # a first line and an empty one
_DIGITS = 24  # of a length, and what stands around it


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that could not be run. `number` names the letter; `code` and `reason` say why it is here.

    `token`: the session's token, or what came in its place. `body`: the turn as it came. `cut_from`: how many
    bytes it had, if not all of them could be kept. `is_answer`: it was published as the answer to a wait.
    """

    number: int
    code: str
    reason: str
    token: str
    run_id: str | None
    time: datetime
    body: bytes
    cut_from: int | None = None
    is_answer: bool = False


class DeadLetters:
    """Files turns under `<ns>.dead.<session>`, and gives them back."""

    def __init__(self, jetstream: JetStream, subjects: Subjects) -> None:
        self._jetstream = jetstream
        self._subjects = subjects

    @classmethod
    @contextlib.asynccontextmanager
    async def of(
        cls, nats: str | list[str] = DEFAULT_SERVER, *, namespace: str = "atto", **options: Any
    ) -> "AsyncGenerator[DeadLetters, None]":
        """`async with DeadLetters.of("nats://…") as letters`; `options` are those of `nats.connect`."""
        arguments: dict[str, Any] = {"name": "atto-dead-letters", **options}
        async with (
            connected(nats, on_reconnect=lambda: None, **arguments) as connection,
            JetStream(connection) as jetstream,
        ):
            yield cls(jetstream, Subjects(namespace))

    async def list(self, session: str | None = None) -> AsyncGenerator[DeadLetter, None]:
        """The letters, oldest first; of one session, if it is named.

        Raises `TopologyMissing` if the namespace was never declared, `BrokerUnavailable`.
        """
        subject = self._subjects.dead_letters if session is None else self._subjects.dead(session)
        reading = self._jetstream.read(self._subjects.dead_stream, subject)
        async with contextlib.aclosing(reading):
            try:
                async for stored in reading:
                    yield _letter(stored)
            except NoResponders as error:
                raise self._missing() from error

    async def show(self, number: int) -> DeadLetter | None:
        """One letter; None if it is not there. Raises as `list` does."""
        try:
            stored = await self._jetstream.at(self._subjects.dead_stream, number)
        except NoResponders as error:
            raise self._missing() from error
        return None if stored is None else _letter(stored)

    async def requeue(self, number: int) -> str:
        """Submits the turn again, as a new run, whose id is returned; the letter is gone then. The id is that
        of the letter: if two operators do so, or one repeats it after a crash, it runs once.

        Raises `DeadLetterUnusable` for a letter that is not there, was cut, or is no turn of a session, and
        what a publish raises (`BrokerRefused` if the session's backlog is full): the letter is kept then.
        """
        letter = await self.show(number)
        if letter is None:
            raise DeadLetterUnusable(f"there is no dead letter {number}")
        run_id = run_id_of_sequence(letter.number, int(letter.time.timestamp() * 1000))
        session = _session_of(letter)
        await self._jetstream.publish(
            self._subjects.answer(session) if letter.is_answer else self._subjects.turn(session),
            _renamed(letter, run_id),
            headers={"Nats-Msg-Id": message_id(session, run_id)},
        )
        await self.drop(number)
        return run_id

    async def drop(self, number: int) -> None:
        """Removes a letter for good; no-op if it is not there."""
        request = {"seq": number, "no_erase": True}
        try:
            await self._jetstream.api(f"STREAM.MSG.DELETE.{self._subjects.dead_stream}", request)
        except BrokerRefused as error:
            if error.err_code not in ALREADY_DELETED:
                raise

    async def file(self, delivery: Delivery, problem: Problem) -> None:
        """Returns once the broker has the letter; filing it again soon is a no-op.

        Of a body that does not fit beside the headers the beginning is kept, and `Atto-Truncated` says how
        long it was. Raises `BrokerUnavailable`, `BrokerRefused`.
        """
        limit, data = self._jetstream.connection.max_payload, delivery.data
        headers = _headers(delivery, problem, limit)
        subject = self._subjects.dead(delivery.token if delivery.session is None else delivery.session)
        kept = len(data)
        if (room := limit - _size(headers)) < kept:
            headers[TRUNCATED] = str(len(data))
            kept = max(0, room - len(TRUNCATED) - _DIGITS)
        while True:
            try:
                await self._jetstream.publish(subject, data[:kept], headers=headers)
            except BrokerRefused as error:  # the stream's own limit may be lower
                if error.err_code != MESSAGE_TOO_LARGE or kept == 0:
                    raise
                headers[TRUNCATED] = str(len(data))
                kept //= 2
            else:
                return

    def _missing(self) -> TopologyMissing:
        return TopologyMissing(
            f"namespace {self._subjects.namespace!r} has not been declared on this broker: "
            "start a worker in it"
        )


def _headers(delivery: Delivery, problem: Problem, limit: int) -> dict[str, str]:
    """At most three quarters of `limit` bytes, down to one of 4 KiB."""
    headers = {
        "Nats-Msg-Id": f"{delivery.sequence}-{delivery.timestamp_ms}",
        CODE: problem.code,
        REASON: _header(problem.reason, limit=min(_REASON_LIMIT, limit // 8)),
        SUBJECT: _header(delivery.subject, limit=min(_SUBJECT_LIMIT, limit // 2)),
        SEQUENCE: str(delivery.sequence),
        TIME: datetime.now(UTC).isoformat(),
    }
    if delivery.run_id is not None:
        headers[RUN] = _header(delivery.run_id)
    return headers


def _header(text: str, *, limit: int = _REASON_LIMIT) -> str:
    """One line of ASCII: what a NATS header can hold whatever came in. `limit`: its bytes."""
    return " ".join(text[:limit].encode("ascii", "backslashreplace")[:limit].decode().split())


def _size(headers: Mapping[str, str]) -> int:
    """Bytes that headers of ASCII take of a message, at most."""
    return _FRAME + sum(len(name) + len(value) + 4 for name, value in headers.items())


def _letter(stored: Stored) -> DeadLetter:
    headers = stored.headers
    truncated = headers.get(TRUNCATED)
    return DeadLetter(
        number=stored.sequence,
        code=headers.get(CODE, ""),
        reason=headers.get(REASON, ""),
        token=headers.get(SUBJECT, "").rpartition(".")[2],
        run_id=headers.get(RUN),
        time=_time(headers),
        body=stored.data,
        cut_from=int(truncated) if truncated is not None and truncated.isdecimal() else None,
        is_answer=headers.get(SUBJECT, "").split(".")[1:2] == ["answer"],
    )


def _time(headers: Mapping[str, str]) -> datetime:
    """When it was filed: by the worker's clock, else by the broker's."""
    for name in (TIME, "Nats-Time-Stamp"):
        with contextlib.suppress(KeyError, msgspec.ValidationError):
            return msgspec.convert(headers[name], datetime)
    return datetime.fromtimestamp(0, UTC)


def _session_of(letter: DeadLetter) -> str:
    try:
        return decode_session(letter.token)
    except InvalidSessionId as error:
        raise DeadLetterUnusable(f"dead letter {letter.number} belongs to no session: {error}") from None


def _renamed(letter: DeadLetter, run_id: str) -> bytes:
    """The turn under a new run id: under its own it has ended already."""
    if letter.cut_from is not None:
        raise DeadLetterUnusable(f"dead letter {letter.number} holds only a part of its turn")
    try:
        check_depth(letter.body)
        turn = msgspec.json.decode(letter.body, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidTurn) as error:
        raise DeadLetterUnusable(f"dead letter {letter.number} is no JSON object: {error}") from None
    return msgspec.json.encode({**turn, "run_id": run_id})
