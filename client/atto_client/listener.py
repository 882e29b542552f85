"""One listener to one run: live events, and replay wherever they leave a hole."""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from atto.broker.alarms import Alarms
from atto.broker.hearing import subscribe
from atto.broker.jetstream import JetStream
from atto.protocol import codec
from atto.protocol.errors import BrokerUnavailable, EventsMissing, InvalidTurn, UnsupportedVersion
from atto.protocol.events import AnyEvent, EventBatch, is_terminal
from atto.protocol.merge import Merger
from atto.protocol.positions import START, Position

GAP_PATIENCE = 0.2
"""Seconds to wait for a missing event before it is looked for in the stream."""
SILENCE_PATIENCE = (1.0, 2.0, 5.0, 10.0)
"""Seconds of silence before the stream is asked whether something was missed; the last one repeats."""
GAP_DOUBT = 1.0
"""Seconds after which a hole that the stream does not fill is laid to what was heard and never stored."""
GAP_EXPIRED = 10.0
"""Seconds after which deltas of a run that goes on, which the stream does not have, are taken for expired. By
then a worker that lost its connection has published them again.
"""
GAP_LIMIT = 30.0
"""Seconds after which a hole that the stream cannot fill is an error: its events have expired."""
LIVE_LIMIT = 1000
"""Batches that may wait for a slow consumer; beyond, they are dropped and read from the stream later."""


class Listener:
    """`await listener.open()`, `await listener.news()` until the terminal event; `await listener.close()`.

    Opening subscribes; events published after that are heard. `replay`: read what was said before, too.
    `after`: leave out what a listener that came this far already knows. `on_close` is told of the end:
    when it is closed, and nobody waits for news any more.
    """

    def __init__(
        self,
        jetstream: JetStream,
        stream: str,
        subject: str,
        *,
        replay: bool,
        after: Position = START,
        alarms: Alarms,
        on_close: Callable[["Listener"], None],
    ) -> None:
        self._on_close = on_close
        self._jetstream = jetstream
        self._stream = stream
        self._subject = subject
        self._behind = replay
        self._after = after
        self._alarms = alarms
        self.due = math.inf
        self._live: deque[EventBatch] = deque()
        self._replayed: AsyncGenerator[EventBatch, None] | None = None
        self._read_until = 0
        self._read: set[int] = set()  # attempts that the stream has
        self._is_ended = False
        self._merger = Merger()
        self._doubted: Merger | None = None
        self._is_doubtful = False
        self._gap_since: float | None = None
        self._silences = 0
        self._is_read = False
        self._waiter: asyncio.Future[None] | None = None
        self._broken: Exception | None = None
        self._subscription: Any = None

    async def open(self) -> None:
        """Returns once the subscription is on its way. Raises `BrokerUnavailable`."""
        try:
            self._subscription = await subscribe(self._jetstream.connection, self._subject, self._hear)
        except nats.errors.Error as error:
            raise BrokerUnavailable(f"cannot listen on {self._subject}: {error!r}") from error

    async def close(self) -> None:
        """Hears nothing more."""
        if not self._is_read:
            self._on_close(self)
        # Let go of, since it refers to this: a cycle a run would keep the garbage collector busy.
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    def catch_up(self) -> None:
        """Something may have been missed (the connection was away): read the stream."""
        self._behind = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """End the iteration with `error`: nothing more will come."""
        self._broken = error
        self._wake()

    async def news(self) -> Sequence[AnyEvent]:
        """The run's next events, once there are any: in order, each once. The terminal one is the last; if
        even that is known, there are none.

        Raises `EventsMissing`, `UnsupportedVersion`, and what `fail` was told.
        """
        self._is_read = True
        while True:
            batch = await self._next_batch()
            events = self._skipped() if batch is None else self._merger.add(batch)
            if not self._merger.has_gap and self._doubted is None:
                self._gap_since = None
                self._is_doubtful = False
            if self._doubted is not None:
                events = self._unlike(self._doubted, events)
            news = events if self._after is START else self._unknown(events)
            if news or (events and is_terminal(events[-1])):
                return news

    async def stop_reading(self) -> None:
        """Whoever asked for news will not ask again."""
        self._is_read = False
        if self._subscription is None:
            self._on_close(self)
        if self._replayed is not None:
            await self._replayed.aclose()

    def speaker(self, seq: int) -> int:
        """Which attempt said the event that was handed out under this number."""
        return self._merger.speaker(seq)

    def _skipped(self) -> Sequence[AnyEvent]:
        """What the stream does not have any more will not come: deltas of a run that has ended, since its end
        is published when all before it is stored, or those that have been missing for long.
        """
        now = asyncio.get_running_loop().time()
        is_old = self._gap_since is not None and now - self._gap_since > GAP_EXPIRED
        return self._merger.skip() if is_old or self._is_ended else ()

    def _begin_anew(self) -> None:
        """By what is stored alone: the broker lets listeners hear what it then refuses to store, such as the
        first words of an attempt that came too late, and those made void what stands.
        """
        self._doubted = self._doubted or self._merger
        self._merger = Merger()
        self._read_until = 0
        self._behind = True

    def _unlike(self, known: Merger, events: Sequence[AnyEvent]) -> Sequence[AnyEvent]:
        """Leaves out what was handed out already; from the first difference on everything is news."""
        for at, event in enumerate(events):
            if known.speaker(event.seq) != self._merger.speaker(event.seq):
                self._doubted = None
                return events[at:]
        return ()

    def _unknown(self, events: Sequence[AnyEvent]) -> Sequence[AnyEvent]:
        """Leaves out what a listener that came as far as `after` already knows: what that attempt, or one
        before it, said up to there.
        """
        attempt, seq = self._after
        for at, event in enumerate(events):
            if event.seq > seq or self._merger.speaker(event.seq) > attempt:
                self._after = START
                return events[at:]
        return ()

    async def _next_batch(self) -> EventBatch | None:
        """What is to be read comes first, then what is live. None: the stream has been read to its end."""
        while True:
            if self._replayed is not None:
                batch = await anext(self._replayed, None)
                if batch is not None:
                    return batch
                self._replayed = None
                if self._silences and not self._merger.attempts <= self._read:
                    self._begin_anew()  # who was heard is not in the stream
                elif self._merger.has_gap:
                    return None
            if self._broken is not None:
                raise self._broken
            if self._merger.must_reread:
                self._merger.must_reread = False
                self._behind = True
                self._read_until = 0
            if self._behind:
                self._behind = False
                self._replayed = self._replay()
            elif self._live:
                self._silences = 0
                return self._live.popleft()
            else:
                await self._wait()

    async def _wait(self) -> None:
        """For something to happen; if nothing does in time, there is reason to read the stream."""
        loop = asyncio.get_running_loop()
        self.due = loop.time() + self._longest_wait()
        self._waiter = loop.create_future()
        self._alarms.set(self)
        try:
            await self._waiter
        finally:
            self._alarms.clear(self)
            self._waiter = None

    def ring(self) -> None:
        """It has been silent for too long."""
        self._silences += 1
        self.catch_up()

    def _longest_wait(self) -> float:
        """Seconds until the stream is asked whether something was missed. Raises `EventsMissing`."""
        if not self._merger.has_gap:
            return SILENCE_PATIENCE[min(self._silences, len(SILENCE_PATIENCE) - 1)]
        now = asyncio.get_running_loop().time()
        self._gap_since = self._gap_since or now
        if now - self._gap_since > GAP_DOUBT and not self._is_doubtful:
            self._is_doubtful = True
            self._begin_anew()
        if now - self._gap_since > GAP_LIMIT:
            raise EventsMissing(
                f"events of {self._subject} are missing from the stream: they have expired. "
                "Read the session's snapshot for what was committed."
            )
        return GAP_PATIENCE

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _replay(self) -> AsyncGenerator[EventBatch, None]:
        """What the stream has beyond what was read of it before."""
        reading = self._jetstream.read(self._stream, self._subject, start=self._read_until + 1)
        try:
            async with contextlib.aclosing(reading):
                async for stored in reading:
                    self._read_until = stored.sequence
                    batch = _decoded(stored.data)
                    if batch is not None:
                        self._read.add(batch.attempt)
                        self._is_ended |= bool(batch.events) and is_terminal(batch.events[-1])
                        yield batch
        except BrokerUnavailable:
            # The broker is away or elects a leader: what is live goes on, and silence asks again.
            self._gap_since = None
            return

    def _hear(self, message: Msg) -> None:
        if len(self._live) >= LIVE_LIMIT:
            self._live.clear()
            self._behind = True
        try:
            batch = _decoded(message.data)
        except UnsupportedVersion as error:
            self.fail(error)
            return
        if batch is not None:
            self._live.append(batch)
            self._wake()


def _decoded(data: bytes) -> EventBatch | None:
    """None for what is no event batch at all. Raises `UnsupportedVersion`."""
    try:
        return codec.decode_batch(data)
    except UnsupportedVersion:
        raise
    except InvalidTurn:
        return None
