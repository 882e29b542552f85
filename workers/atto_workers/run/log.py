"""The events of a run on their way out: numbered, coalesced, and in the end known to be in the stream.

Events are published without waiting. What the broker takes from one connection it takes in order, so once it
acknowledges the last event of a run it has all of them, unless the connection was lost in between: then
all of the run's batches are published once more, and listeners drop what they know. Where the stream has
replicas each batch is acknowledged, for one that comes while they elect a leader vanishes without a word.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Self

import nats.errors
from nats.aio.client import Client as Connection

from atto.broker.jetstream import JetStream
from atto.broker.refusals import MESSAGE_TOO_LARGE
from atto.protocol import codec
from atto.protocol.errors import BrokerRefused, BrokerUnavailable
from atto.protocol.events import AnyEvent
from atto.protocol.turns import SCHEMA_VERSION

PATIENCE = 2.0
"""Seconds in which a stream acknowledges events; replicas that elect a leader say nothing at all."""
RETRY_PAUSE = 0.2
"""Seconds before events that the stream did not acknowledge are published again."""

BEAT = 0.005
"""Seconds for which events wait for others of their run, at the most: a fast model's, or a busy worker's."""
LONGEST_BEAT = 0.1
"""Seconds likewise in a worker whose event loop is late, so that it need not fall behind still more."""
LATENESS = 8
"""How many times the loop's lateness a beat lasts, within these bounds."""
A_RUN = 1e-4
"""Seconds that it lasts for each run that waits in it, likewise: so all runs together publish about 10,000
messages a second at the most, of which many deltas would otherwise have one each.
"""
PROMPT = 8
"""Runs of a worker that speak without waiting in one beat; beyond, it is busy."""

_log = logging.getLogger("atto.worker")

_HEADROOM = 4096
"""Bytes of a message left for the envelope and for the protocol line."""


class Outbox:
    """Publishes what logs have collected. One task serves all runs of a worker: no event costs a task.

    A run that has just spoken, and any run once many have, waits for the beat: so the deltas of a fast model,
    and those of a busy worker, share messages, while a slow model's leave at once.

    `is_replicated`: the stream has replicas, and what is published while they elect a leader is lost.
    """

    def __init__(self, jetstream: JetStream, *, is_replicated: bool = False) -> None:
        self.jetstream = jetstream
        self.is_replicated = is_replicated
        self._dirty: dict[RunLog, None] = {}
        self._waiting: dict[RunLog, None] = {}
        self._spoke: set[RunLog] = set()
        self._beat: asyncio.TimerHandle | None = None
        self._pace = BEAT
        self._logs: set[RunLog] = set()
        self._wake = asyncio.Event()

    @property
    def connection(self) -> Connection:
        """The connection that events leave through."""
        return self.jetstream.connection

    def open(self, log: "RunLog") -> None:
        """`log` is going to speak."""
        self._logs.add(log)

    def close(self, log: "RunLog") -> None:
        """`log` has said all."""
        self._logs.discard(log)

    def reconnected(self) -> None:
        """The lost connection may have swallowed events: listeners need not wait for their runs to end."""
        for log in self._logs:
            log.repeat()

    def offer(self, log: "RunLog") -> None:
        """`log` has something to publish."""
        if log in self._spoke or len(self._spoke) + len(self._dirty) >= PROMPT:
            self._waiting[log] = None
            self._begin_beat()
        else:
            self._dirty[log] = None
            self._wake.set()

    async def serve(self) -> None:
        """Runs until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                await self._send_dirty()
        finally:
            if self._beat is not None:
                self._beat.cancel()

    async def _send_dirty(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for log in dirty:
            self._spoke.add(log)
            self._waiting.pop(log, None)
            await log.send()
        self._begin_beat()

    def _begin_beat(self) -> None:
        if self._beat is None:
            loop = asyncio.get_running_loop()
            self._beat = loop.call_at(loop.time() + self._pace, self._on_beat)

    def _on_beat(self) -> None:
        if self._beat is not None:
            late = asyncio.get_running_loop().time() - self._beat.when()
            crowd = A_RUN * len(self._waiting)
            self._pace = min(LONGEST_BEAT, max(BEAT, self._pace / 2, LATENESS * late, crowd))
        self._beat = None
        self._spoke.clear()
        if self._waiting:
            self._dirty.update(self._waiting)
            self._waiting.clear()
            self._wake.set()


class RunLog:
    """The events of one attempt at a run: `with RunLog(…) as log`.

    `since`: the number of its first event. `is_silenced`: tells that another worker speaks for the run now;
    from then on nothing is published.
    """

    def __init__(
        self,
        outbox: Outbox,
        subject: str,
        *,
        attempt: int = 1,
        since: int = 1,
        is_silenced: Callable[[], bool] = lambda: False,
    ) -> None:
        self.next = since
        self.attempt = attempt
        self._outbox = outbox
        self._subject = subject
        self._prefix = b'{"v":%d,"attempt":%d,"since":%d,"events":[' % (SCHEMA_VERSION, attempt, since)
        self._is_silenced = is_silenced
        self._buffer: list[bytes] = []
        self._size = 0
        self._sent: list[bytes] = []
        self._confirmed = 0
        self._generation = outbox.connection.stats["reconnects"]
        self._limit = outbox.connection.max_payload - _HEADROOM
        self._repeats = False
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

    @property
    def event_limit(self) -> int:
        """How many bytes one event may have."""
        return self._limit

    def append(self, event: AnyEvent, encoded: bytes | None = None) -> None:
        """Adds the event numbered `self.next`; `encoded`: its JSON, where it is known already."""
        data = codec.encode(event) if encoded is None else encoded
        self.next += 1
        self._size += len(data) + 1
        if not self._buffer:  # else it has been offered
            self._outbox.offer(self)
        self._buffer.append(data)

    def repeat(self) -> None:
        """Publishes all of it once more, soon, without waiting; `confirm` does not rely on that."""
        self._repeats = True
        self._outbox.offer(self)

    async def send(self) -> None:
        """Publishes what has been appended, without waiting for the stream."""
        if self._repeats:
            self._repeats = False
            for number, batch in enumerate(list(self._sent)):
                await self._send(number, batch)
        while self._buffer:
            batch = self._take()
            await self._send(len(self._sent) - 1, batch)

    async def _send(self, number: int, batch: bytes) -> None:
        if self._is_silenced():
            return
        try:
            if self._outbox.is_replicated:
                self._unstored.add(number)
                await self._outbox.jetstream.publish_soon(self._subject, batch, partial(self._stored, number))
            else:
                await self._outbox.connection.publish(self._subject, batch)
        except (nats.errors.Error, BrokerUnavailable, BrokerRefused):
            self._generation = -1  # it is published again before the run ends

    def _stored(self, number: int) -> None:
        self._unstored.discard(number)
        self._acknowledged.set()

    async def confirm(self) -> None:
        """Returns once the stream has all that had been appended, however long the broker is away."""
        while not self._is_silenced():
            try:
                async with self._confirming:
                    await self._confirm_once()
            except (BrokerUnavailable, BrokerRefused) as error:
                # A stream that is full is as bad as one that is away, and as likely to come back.
                if isinstance(error, BrokerRefused) and error.err_code == MESSAGE_TOO_LARGE:
                    raise
                _log.debug("events on %s: %s", self._subject, error)
                await asyncio.sleep(RETRY_PAUSE)
            else:
                return

    async def _confirm_once(self) -> None:
        """What is appended meanwhile (by tools side by side) is another confirmation's matter."""
        stats = self._outbox.connection.stats
        known = len(self._sent)
        while self._buffer:
            self._take()
        count = len(self._sent)
        try:
            if self._outbox.is_replicated and self._generation == stats["reconnects"]:
                await self._wait_for(known)
            for number in self._unconfirmed(known, count, stats["reconnects"]):
                await self._outbox.jetstream.publish(self._subject, self._sent[number], timeout=PATIENCE)
                self._unstored.discard(number)
        except BaseException:
            self._generation = -1  # whatever became of it, all is published again
            raise
        if self._generation != stats["reconnects"]:
            raise BrokerUnavailable("the connection was lost while a run's events were published")
        self._confirmed = max(self._confirmed, count)

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

    def _take(self) -> bytes:
        """The next batch: as many events as fit into a message."""
        events, self._buffer = self._buffer, []
        if self._size > self._limit:
            count = _fitting(events, self._limit)
            self._buffer = events[count:]
            del events[count:]
        self._size = sum(map(len, self._buffer)) + len(self._buffer)
        batch = self._prefix + b",".join(events) + b"]}"
        self._sent.append(batch)
        return batch


def _fitting(events: list[bytes], limit: int) -> int:
    """How many of the first events fit into `limit` bytes; one does in any case."""
    size = 0
    for count, event in enumerate(events):
        size += len(event) + 1
        if count and size > limit:
            return count
    return len(events)
