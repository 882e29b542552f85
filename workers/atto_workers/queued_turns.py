"""Turns that were accepted and have not ended, as an operator sees them: listed, and removed one by one."""

import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import msgspec

from atto.broker.jetstream import JetStream, Stored
from atto.broker.refusals import NO_MESSAGE
from atto.protocol import codec
from atto.protocol.errors import AttoError, BrokerRefused, NoResponders, NoSuchTurn, TopologyMissing
from atto.protocol.events import EventBatch, RunCancelled
from atto.protocol.ids import decode_session, encode_run, run_id_of_sequence
from atto.protocol.subjects import Subjects
from atto.protocol.turns import Cancel, Turn
from atto_workers.run.journal import read_progress

REMOVED = "removed by an operator"
"""The reason that callers are told."""

_SHOWN = 80
_NOT_DELETED = 10057  # JetStream's "message delete failed": it was not there


class QueuedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn in the stream, running or waiting. `number` names it.

    `token`: the session's token, or what came in its place; `session` and `run_id` are None where they cannot
    be made out. `size`: bytes of the body. `text`: how its input begins, or why it cannot be read.
    """

    number: int
    partition: int | None
    token: str
    session: str | None
    run_id: str | None
    time: datetime
    size: int
    text: str


class QueuedTurns:
    """Looks at the stream of turns, whatever is in it. Needs no worker to be there."""

    def __init__(self, jetstream: JetStream, subjects: Subjects) -> None:
        self._jetstream = jetstream
        self._subjects = subjects

    async def list(self, session: str | None = None) -> AsyncGenerator[QueuedTurn, None]:
        """All of them, oldest first; those of one session, if it is named.

        Raises `TopologyMissing`, `BrokerUnavailable`.
        """
        reading = self._jetstream.read(self._subjects.turns_stream, f"{self._subjects.namespace}.>")
        async with contextlib.aclosing(reading):
            try:
                async for stored in reading:
                    turn = self._turn(stored)
                    if session is None or turn.session == session:
                        yield turn
            except NoResponders:
                raise TopologyMissing(
                    f"namespace {self._subjects.namespace!r} has not been declared on this broker: "
                    "start a worker in it"
                ) from None

    async def remove(self, number: int) -> QueuedTurn:
        """Takes a turn out of the stream. One that can be made out is cancelled, and its callers are told.

        Safe to repeat. Raises `NoSuchTurn`, `BrokerUnavailable`, `BrokerRefused`.
        """
        stored = await self._jetstream.at(self._subjects.turns_stream, number)
        if stored is None:
            raise NoSuchTurn(f"there is no turn {number} in namespace {self._subjects.namespace!r}")
        turn = self._turn(stored)
        if turn.session is not None and turn.run_id is not None:
            # Told first: a turn that is gone before its callers know of it would be lost in silence.
            await self._tell(turn.session, turn.run_id)
        await self._delete(number)
        return turn

    async def _tell(self, session: str, run_id: str) -> None:
        cancel = codec.encode(Cancel(reason=REMOVED))
        await self._jetstream.publish(self._subjects.cancel(session, run_id), cancel)
        subject = self._subjects.event(session, run_id)
        progress = await read_progress(self._jetstream, self._subjects.events_stream, subject)
        if progress.terminal is None:
            end = RunCancelled(seq=progress.next, time=datetime.now(UTC), reason=REMOVED)
            batch = EventBatch(events=(end,), attempt=progress.attempt + 1, since=progress.next)
            await self._jetstream.publish(subject, codec.encode(batch))

    async def _delete(self, number: int) -> None:
        request = {"seq": number, "no_erase": True}
        try:
            await self._jetstream.api(f"STREAM.MSG.DELETE.{self._subjects.turns_stream}", request)
        except BrokerRefused as error:
            if error.err_code not in {NO_MESSAGE, _NOT_DELETED}:
                raise

    def _turn(self, stored: Stored) -> QueuedTurn:
        place = self._subjects.stored_turn(stored.subject)
        time = msgspec.convert(stored.headers.get("Nats-Time-Stamp", "1970-01-01T00:00:00Z"), datetime)
        session = None
        named, problem = None, ""
        try:
            session = decode_session(place.token)
            turn = codec.decode_turn(stored.data)
            named, text = turn.run_id, _text_of(turn)
        except AttoError as error:
            named, text, problem = codec.probe_run_id(stored.data), "", str(error)
        run_id = named or run_id_of_sequence(stored.sequence, int(time.timestamp() * 1000))
        return QueuedTurn(
            number=stored.sequence,
            partition=place.partition,
            token=place.token,
            session=session,
            run_id=_if_valid(run_id),
            time=time,
            size=len(stored.data),
            text=_first_line(text) if not problem else f"unreadable: {_first_line(problem)}",
        )


def _if_valid(run_id: str) -> str | None:
    try:
        encode_run(run_id)
    except AttoError:
        return None
    return run_id


def _text_of(turn: Turn) -> str:
    if turn.resume is None:
        return turn.message().text
    return f"answer to run {turn.resume.run_id}: {', '.join(turn.resume.answers)}"


def _first_line(text: str) -> str:
    line = next(iter(text.splitlines()), "")
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
