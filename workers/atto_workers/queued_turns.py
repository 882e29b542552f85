"""Turns that were accepted and have not ended, as an operator sees them: listed, and removed one by one."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import msgspec

from atto.broker.jetstream import JetStream, Stored
from atto.broker.refusals import ALREADY_DELETED, STREAM_NOT_FOUND
from atto.protocol import codec
from atto.protocol.errors import AttoError, BrokerRefused, NoResponders, NoSuchTurn, TopologyMissing
from atto.protocol.events import EventBatch, RunCancelled
from atto.protocol.ids import decode_session, encode_run, encode_session, run_id_of_sequence
from atto.protocol.subjects import Subjects
from atto.protocol.turns import Cancel, Turn
from atto_workers.census import Census, Handed
from atto_workers.ownership import PartitionKey
from atto_workers.run.attempts import put_fence
from atto_workers.run.journal import read_progress

REMOVED = "removed by an operator"
"""The reason that callers are told."""

WORKER_PATIENCE = 5.0
"""Seconds that the worker that has a turn gets to end its run, as it ends any that is cancelled."""

_LOOK_PERIOD = 0.1
_SHOWN = 80


class QueuedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn in the stream, running or waiting. `number` names it.

    `token`: the session's token, or what came in its place; `session` and `run_id` are None where they cannot
    be made out. `size`: bytes of the body. `text`: how its input begins, or why it cannot be read. `worker`:
    the one that it was handed to, where it runs, or waits for the turns before it; None while it waits for a
    worker. How often it was handed out is not known: the broker counts that for itself.
    """

    number: int
    partition: int | None
    token: str
    session: str | None
    run_id: str | None
    time: datetime
    size: int
    text: str
    worker: str | None = None


class QueuedTurns:
    """Looks at the stream of turns, whatever is in it. Needs no worker to be there."""

    def __init__(
        self, jetstream: JetStream, subjects: Subjects, *, patience: float = WORKER_PATIENCE
    ) -> None:
        self._jetstream = jetstream
        self._subjects = subjects
        self._patience = patience

    async def list(self, session: str | None = None) -> AsyncGenerator[QueuedTurn, None]:
        """All of them, oldest first; those of one session, if it is named.

        Raises `TopologyMissing`, `BrokerUnavailable`.
        """
        handed = await self._handed()
        reading = self._jetstream.read(self._subjects.turns_stream, f"{self._subjects.namespace}.>")
        async with contextlib.aclosing(reading):
            try:
                async for stored in reading:
                    turn = self._turn(stored, handed)
                    if session is None or turn.session == session:
                        yield turn
            except NoResponders:
                raise self._missing() from None

    async def remove(self, which: int | str) -> QueuedTurn:
        """Takes a turn out of the stream, by its number or its run id. One that can be made out is cancelled,
        and its callers are told: by the worker that has it, which stops its run, or else from here.

        No worker runs it from then on. Safe to repeat. Raises `NoSuchTurn` (also where turns of several
        sessions have the run id), `TopologyMissing`, `BrokerUnavailable`, `BrokerRefused`.
        """
        turn = await (self._numbered(which) if isinstance(which, int) else self._of_run(which))
        if turn.session is not None and turn.run_id is not None:
            # Told first: a turn that is gone before its callers know of it would be lost in silence.
            await self._tell(turn.session, turn.run_id, is_held=turn.worker is not None)
        await self._delete(turn.number)
        return turn

    async def _numbered(self, number: int) -> QueuedTurn:
        handed = await self._handed()
        try:
            stored = await self._jetstream.at(self._subjects.turns_stream, number)
        except NoResponders:
            raise self._missing() from None
        if stored is None:
            raise NoSuchTurn(f"there is no turn {number} in namespace {self._subjects.namespace!r}")
        return self._turn(stored, handed)

    async def _of_run(self, run_id: str) -> QueuedTurn:
        found = [turn async for turn in self.list() if turn.run_id == run_id]
        match found:
            case [turn]:
                return turn
            case []:
                raise NoSuchTurn(
                    f"there is no turn of run {run_id!r} in namespace {self._subjects.namespace!r}: it has "
                    "ended, or never was"
                )
            case _:
                numbers = ", ".join(f"{turn.number} of {turn.token}" for turn in found)
                raise NoSuchTurn(f"there are several turns of run {run_id!r}: name one by number: {numbers}")

    async def _handed(self) -> dict[PartitionKey, Handed]:
        try:
            return await Census(self._jetstream, self._subjects).handed()
        except BrokerRefused as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise self._missing() from None
            raise

    async def _tell(self, session: str, run_id: str, *, is_held: bool) -> None:
        cancel = codec.encode(Cancel(reason=REMOVED))
        await self._jetstream.publish(self._subjects.cancel(session, run_id), cancel)
        subject, stream = self._subjects.event(session, run_id), self._subjects.events_stream
        if is_held and await self._has_ended(subject):
            return
        # A worker that holds it and gave no sign is silenced: nothing that it says later stands.
        fence = self._subjects.fence_of(encode_session(session), encode_run(run_id))
        await put_fence(self._jetstream, stream, fence, {})
        progress = await read_progress(self._jetstream, stream, subject)
        if progress.terminal is None:
            end = RunCancelled(seq=progress.next, time=datetime.now(UTC), reason=REMOVED)
            batch = EventBatch(events=(end,), attempt=progress.attempt + 1, since=progress.next)
            await self._jetstream.publish(subject, codec.encode(batch))

    async def _has_ended(self, subject: str) -> bool:
        """Whether the worker that has the turn ends its run, in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        while (await read_progress(self._jetstream, self._subjects.events_stream, subject)).terminal is None:
            if loop.time() > deadline:
                return False
            await asyncio.sleep(_LOOK_PERIOD)
        return True

    def _missing(self) -> TopologyMissing:
        return TopologyMissing(
            f"namespace {self._subjects.namespace!r} has not been declared on this broker: "
            "start a worker in it"
        )

    async def _delete(self, number: int) -> None:
        request = {"seq": number, "no_erase": True}
        try:
            await self._jetstream.api(f"STREAM.MSG.DELETE.{self._subjects.turns_stream}", request)
        except BrokerRefused as error:
            if error.err_code not in ALREADY_DELETED:
                raise

    def _turn(self, stored: Stored, handed: dict[PartitionKey, Handed]) -> QueuedTurn:
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
        holder = handed.get(place.partition)
        return QueuedTurn(
            number=stored.sequence,
            partition=place.partition,
            token=place.token,
            session=session,
            run_id=_if_valid(run_id),
            time=time,
            size=len(stored.data),
            text=_first_line(text) if not problem else f"unreadable: {_first_line(problem)}",
            worker=holder.worker if holder is not None and holder.up_to >= stored.sequence else None,
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
