"""What the runs of a worker say, on its way to the broker: coalesced, and looked after while they run."""

import asyncio
from typing import TYPE_CHECKING

from nats.aio.client import Client as Connection

from atto.broker.jetstream import JetStream
from atto_workers.run.health import StreamHealth
from atto_workers.run.keeping import Kept, Lifetimes

if TYPE_CHECKING:
    from atto_workers.run.log import RunLog

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

KEPT_FOR = 6
"""A run's events are published again in a sixth of the time for which the stream keeps them."""
LONGEST_KEPT = 600.0
"""Seconds after which those of an earlier attempt are, and all where the stream may push them out."""
SHORTEST_KEPT = 0.25
"""Seconds before they are again."""


class Outbox:
    """Publishes what logs have collected. One task serves all runs of a worker: no event costs a task.

    A run that has just spoken, and any run once many have, waits for the beat: so the deltas of a fast model,
    and those of a busy worker, share messages, while a slow model's leave at once.

    `is_replicated`: the stream has replicas, and what is published while they elect a leader is lost.
    `max_age`: seconds for which the stream keeps records; None: for ever. `kept`: likewise by kind, where
    each message says so. `health`: is told how the stream takes them.
    """

    def __init__(
        self,
        jetstream: JetStream,
        *,
        is_replicated: bool = False,
        max_age: float | None = None,
        kept: Kept | None = None,
        health: StreamHealth | None = None,
    ) -> None:
        self.lifetimes = Lifetimes(kept)
        self.jetstream = jetstream
        self.health = StreamHealth() if health is None else health
        self.health.on_healed = self._healed
        self._keep = LONGEST_KEPT if not max_age else max_age / KEPT_FOR
        if kept is None:  # what others say may push it out
            self._keep = min(LONGEST_KEPT, self._keep)
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

    def _healed(self) -> None:
        """A stream that took nothing, as one that was full, refused events without a word.

        But for records, where it is asked for an answer to each.
        """
        if self.lifetimes.is_said:
            return
        for log in self._logs:
            log.doubt()

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

    async def keep(self) -> None:
        """Runs until cancelled: publishes again what would expire before its run has ended.

        Else a successor would find a part of what the run did, or nothing.
        """
        period = max(SHORTEST_KEPT, self._keep)
        while True:
            await asyncio.sleep(min(period, LONGEST_KEPT))
            for log in list(self._logs):
                await log.keep(period)

    async def _send_dirty(self) -> None:
        dirty, self._dirty = self._dirty, {}
        for log in dirty:
            if log.postpones():
                self._waiting[log] = None
                continue
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
