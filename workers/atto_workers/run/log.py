"""The events of a run on their way out: numbered, coalesced, and in the end known to be in the stream.

Events are published without waiting. What the broker takes from one connection it takes in order, so once it
acknowledges the last event of a run it has all of them, unless the connection was lost in between: then
all of the run's batches are published once more, and listeners drop what they know. Where the stream has
replicas each batch is acknowledged, for one that comes while they elect a leader vanishes without a word.

Two kinds of messages are refused where another worker speaks for the run by now, or did before: the opening
of an attempt, unless the journal is as that attempt knows it, and what is confirmed, unless its fence stands.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

import nats.errors
from msgspec.structs import replace

from atto.broker.refusals import MESSAGE_TOO_LARGE, WRONG_LAST_SEQUENCE, WRONG_LAST_SEQUENCE_CONSTANT
from atto.protocol import codec
from atto.protocol.errors import BrokerRefused, BrokerUnavailable
from atto.protocol.events import AnyEvent, EventBatch, RecordEvent, is_terminal
from atto.protocol.turns import SCHEMA_VERSION
from atto_workers.backoff import Backoff
from atto_workers.run.opening import EXPECTED, EXPECTED_SUBJECT, Opening
from atto_workers.run.outbox import Outbox
from atto_workers.run.standing import GaveUp, Superseded

PATIENCE = 2.0
"""Seconds in which a stream acknowledges events; replicas that elect a leader say nothing at all."""

_log = logging.getLogger("atto.worker")

_HEADROOM = 4096
"""Bytes of a message left for the envelope and for the protocol line."""


class Fence(NamedTuple):
    """The fence of a run as its owner left it: the last sequence of `subject`, 0 for a first attempt's."""

    subject: str
    sequence: int = 0

    @property
    def headers(self) -> dict[str, str]:
        """What has the broker refuse a message once another attempt has begun."""
        return {EXPECTED: str(self.sequence), EXPECTED_SUBJECT: self.subject}


async def _sure() -> bool:
    return True


class RunLog:
    """The events of one attempt at a run: `with RunLog(…) as log`.

    `since`: the number of its first event; `recorded`: that of the last record before it, by default the one
    before `since`. `is_silenced`: tells that another worker speaks for the run now;
    from then on nothing is published. `fence`: what holds as long as nobody has begun a later attempt.
    `opening`: proves that nobody has spoken since this attempt knows what was said. `inherited`: the messages
    of earlier attempts; they are kept in the stream with those of this one. `assure`: makes sure, before
    something is confirmed, that the worker owns the partition still.
    """

    def __init__(
        self,
        outbox: Outbox,
        subject: str,
        *,
        attempt: int = 1,
        since: int = 1,
        recorded: int | None = None,
        is_silenced: Callable[[], bool] = lambda: False,
        fence: Fence | None = None,
        opening: Opening | None = None,
        inherited: Sequence[bytes] = (),
        assure: Callable[[], Awaitable[bool]] = _sure,
    ) -> None:
        self.next = since
        self._recorded = since - 1 if recorded is None else recorded
        self.acted = False
        """Whether calls of tools with effects were begun."""
        self.attempt = attempt
        self._outbox = outbox
        self._subject = subject
        self._prefix = b'{"v":%d,"attempt":%d,"since":%d,"events":[' % (SCHEMA_VERSION, attempt, since)
        self._is_silenced = is_silenced
        self._fence = fence
        self._opening = opening
        self._assure = assure
        self._buffer: list[bytes] = []
        self._size = 0
        self._reserved: int | None = None  # how many events of the buffer may leave before a confirmation
        self._sent: list[bytes] = list(inherited)
        self._lifetimes = outbox.lifetimes
        self._kept: list[Mapping[str, str]] = list(map(self._lifetimes.of_message, inherited))
        self._guarded: set[int] = set()
        self._confirmed = len(self._sent)
        self._generation = outbox.connection.stats["reconnects"]
        self._limit = outbox.connection.max_payload - _HEADROOM
        self._repeats = False
        self._repeats_deltas = False
        self._ends_soon = False
        self._kept_at = 0.0 if inherited else asyncio.get_running_loop().time()
        self._unstored: set[int] = set()
        self._acknowledged = asyncio.Event()
        self._confirming = asyncio.Lock()

    def __enter__(self) -> Self:
        self._outbox.open(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._outbox.close(self)
        if self._opening is not None:
            self._opening.forget()

    @property
    def first(self) -> int:
        """As of the next event, if it is a record: where the deltas before it begin, 0 if there are none."""
        return 0 if self._recorded == self.next - 1 else self._recorded + 1

    @property
    def event_limit(self) -> int:
        """How many bytes one event may have."""
        return self._limit

    def append(self, event: AnyEvent, encoded: bytes | None = None, *, guarded: bool = False) -> None:
        """Adds the event numbered `self.next`; `encoded`: its JSON, where it is known already.

        `guarded`: it is not published before `confirm`, and not at all where that is refused.
        """
        if isinstance(event, RecordEvent):
            first = 0 if self._recorded == self.next - 1 else self._recorded + 1  # as the property has it
            if event.first != first:  # unless it was known when the event was made
                event, encoded = replace(event, first=first), None
            self._recorded = self.next
        data = codec.encode(event) if encoded is None else encoded
        self.next += 1
        self._size += len(data) + 1
        self.acted = self.acted or (guarded and not is_terminal(event))
        if guarded and self._reserved is None:
            self._reserved = len(self._buffer)
        if not self._buffer:  # else it has been offered
            self._outbox.offer(self)
        self._buffer.append(data)

    def end_soon(self) -> None:
        """The run's last event is about to come: what is left to be said waits for it, a beat at the most."""
        self._ends_soon = True

    def postpones(self) -> bool:
        """Whether it rather speaks in the next beat. Once."""
        postpones, self._ends_soon = self._ends_soon, False
        return postpones

    def doubt(self) -> None:
        """What was sent may not be in the stream: all of it is published once more, soon, and at the next
        confirmation.
        """
        self._generation = -1
        self.repeat()

    def said(self) -> list[EventBatch]:
        """All that was said of the run, as far as this attempt knows it, published or not."""
        batches = list(map(codec.decode_batch, self._sent))
        if self._buffer:
            batches.append(codec.decode_batch(self._prefix + b",".join(self._buffer) + b"]}"))
        return batches

    def repeat(self) -> None:
        """Publishes all of it once more, soon, without waiting; `confirm` does not rely on that."""
        self._repeats_deltas = True
        if self._opening is not None:
            self._opening.disturb()
        self._repeat()

    def _repeat(self) -> None:
        self._repeats = True
        self._outbox.offer(self)

    async def keep(self, period: float) -> None:
        """Publishes all records once more if that was long ago, and renews the fence: the stream forgets."""
        now = asyncio.get_running_loop().time()
        if now - self._kept_at < period or self._confirming.locked() or self._is_silenced():
            return
        self._kept_at = now
        async with self._confirming:
            if self._fence is not None and self._fence.sequence:
                with contextlib.suppress(BrokerUnavailable, BrokerRefused):
                    taken = await self._outbox.jetstream.publish(
                        self._fence.subject,
                        b"",
                        headers={**self._fence.headers, **self._lifetimes.openings},
                        timeout=PATIENCE,
                    )
                    self._fence = self._fence._replace(sequence=taken.sequence)
        self._repeat()

    async def send(self) -> None:
        """Publishes what has been appended, without waiting for the stream."""
        if self._opening is not None and not self._opening.is_proven:
            # Nothing is heard after the opening, unless the run is indeed a new one.
            if not self._opening.is_sent and self._reserved != 0 and not self._is_silenced():
                await self._open()
            return
        if self._repeats:
            deltas, self._repeats, self._repeats_deltas = self._repeats_deltas, False, False
            for number, batch in enumerate(list(self._sent)):
                is_wanted = deltas or self._kept[number] is not self._lifetimes.deltas
                if is_wanted and number not in self._guarded:
                    await self._send(number, batch)
        while self._buffer and self._reserved is None:
            batch = self._take()
            await self._send(len(self._sent) - 1, batch)

    async def _send(self, number: int, batch: bytes) -> None:
        if self._is_silenced():
            return
        kept = self._kept[number] or None
        try:
            # A stream that is full refuses; of deltas that may be gone nobody need know.
            if self._outbox.is_replicated or (kept is not None and kept is not self._lifetimes.deltas):
                self._unstored.add(number)
                await self._outbox.jetstream.publish_soon(
                    self._subject,
                    batch,
                    partial(self._stored, number),
                    headers=kept,
                    refused=self._hear_refusal,
                )
            else:
                await self._outbox.jetstream.send(self._subject, batch, headers=kept)
        except (nats.errors.Error, BrokerUnavailable, BrokerRefused):
            self._generation = -1  # it is published again before the run ends

    def _stored(self, number: int) -> None:
        self._unstored.discard(number)
        self._acknowledged.set()

    def _hear_refusal(self, error: BrokerRefused | BrokerUnavailable) -> None:
        """It is published again before the run ends, however long the stream is full."""
        self._generation = -1
        self._outbox.health.failed(error)

    async def _open(self) -> None:
        """Publishes the opening: of what is guarded only an end that comes first."""
        if self._opening is not None:
            number = len(self._sent)
            batch = self._take(self._reserved or None)
            self._kept[number] = self._lifetimes.openings
            await self._opening.send(batch, partial(self._proven, number))

    def _proven(self, number: int) -> None:
        self._confirmed = max(self._confirmed, number + 1)
        if self._buffer:
            self._outbox.offer(self)

    def when_refused(self, tell: Callable[[], None]) -> None:
        """Calls `tell` where it turns out that another attempt has spoken: nothing of this one will stand."""
        if self._opening is not None:
            self._opening.on_refused = tell

    async def opened(self) -> None:
        """Returns once it is certain that this attempt is the one that may speak: of a first one, that the
        run is new.

        Raises `Superseded` if one has, `GaveUp` if this worker has nothing more to say.
        """
        opening = self._opening
        if opening is None or opening.is_proven:
            return
        if not opening.is_sent:
            await self._open()
        await opening.proven(self._is_silenced)

    async def confirm(self) -> None:
        """Returns once the stream has all that had been appended, as the words of the run's owner, however
        long the broker is away.

        Raises `Superseded` if another attempt at the run has begun, `GaveUp` if this worker has nothing more
        to say.
        """
        backoff: Backoff | None = None
        while True:
            await self._assure()
            if self._is_silenced():
                raise GaveUp
            try:
                async with self._confirming:
                    await self.opened()
                    await self._confirm_once()
            except (BrokerUnavailable, BrokerRefused) as error:
                backoff = backoff or Backoff()
                # A stream that is full is as bad as one that is away, and as likely to come back.
                if isinstance(error, BrokerRefused):
                    if error.err_code == MESSAGE_TOO_LARGE:
                        raise
                    if error.err_code == WRONG_LAST_SEQUENCE:
                        raise Superseded(str(error)) from None
                    if error.err_code == WRONG_LAST_SEQUENCE_CONSTANT:
                        await backoff.pause()  # one that was sent before is under way still
                        continue
                self._outbox.health.failed(error)
                _log.debug("events on %s: %s", self._subject, error)
                await backoff.pause()
            else:
                self._outbox.health.took()
                return

    async def _confirm_once(self) -> None:
        """What is appended meanwhile (by tools side by side) is another confirmation's matter."""
        stats = self._outbox.connection.stats
        known = len(self._sent)
        while self._buffer:
            self._guarded.add(len(self._sent))
            self._take()
        count = len(self._sent)
        try:
            if self._outbox.is_replicated and self._generation == stats["reconnects"]:
                await self._wait_for(known)
            for number in self._unconfirmed(known, count, stats["reconnects"]):
                is_guarded = number == count - 1 or number in self._guarded
                headers = self._kept[number]
                if is_guarded and self._fence is not None:
                    headers = {**self._fence.headers, **headers}
                await self._outbox.jetstream.publish(
                    self._subject, self._sent[number], headers=headers or None, timeout=PATIENCE
                )
                self._unstored.discard(number)
            if self._unstored and not self._outbox.is_replicated:
                # They were answered before this one was, unless the connection lost the answers.
                await self._wait_for(known)
                self._check(known)
        except BaseException:
            self._generation = -1  # whatever became of it, all is published again
            raise
        if self._generation != stats["reconnects"]:
            raise BrokerUnavailable("the connection was lost while a run's events were published")
        self._guarded.clear()
        self._confirmed = max(self._confirmed, count)

    def _check(self, known: int) -> None:
        if any(number < known for number in self._unstored):
            raise BrokerUnavailable("the stream did not say that it has all of a run's records")

    def _unconfirmed(self, known: int, count: int, reconnects: int) -> Iterable[int]:
        """Which of the first `count` batches to publish and have acknowledged; `known` were sent before."""
        if self._generation != reconnects:
            self._generation = reconnects  # a batch that cannot be sent meanwhile marks it again
            return range(count)
        if self._outbox.is_replicated:
            return [*(number for number in self._unstored if number < known), *range(known, count)]
        if known < count:
            return range(known, count)
        return range(count - 1, count) if self._confirmed < count else ()

    async def _wait_for(self, known: int) -> None:
        """For the acknowledgements of the first `known` batches, as long as they may still come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while any(number < known for number in self._unstored):
                    self._acknowledged.clear()
                    await self._acknowledged.wait()

    def _take(self, most: int | None = None) -> bytes:
        """The next batch: as many events as fit into a message, and no more than `most`."""
        events, self._buffer = self._buffer, []
        count = len(events) if most is None else most
        if self._size > self._limit:
            count = min(count, _fitting(events, self._limit))
        self._buffer = events[count:]
        del events[count:]
        self._size = sum(map(len, self._buffer)) + len(self._buffer)
        if self._reserved is not None:
            left = self._reserved - count
            self._reserved = left if left >= 0 else 0 if self._buffer else None
        batch = self._prefix + b",".join(events) + b"]}"
        self._sent.append(batch)
        self._kept.append(self._lifetimes.of(events))
        return batch


def _fitting(events: list[bytes], limit: int) -> int:
    """How many of the first events fit into `limit` bytes; one does in any case."""
    size = 0
    for count, event in enumerate(events):
        size += len(event) + 1
        if count and size > limit:
            return count
    return len(events)
