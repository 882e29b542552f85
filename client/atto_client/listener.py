"""One listener to one run: live events, and replay wherever they leave a hole."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Self

import nats.errors
from nats.aio.msg import Msg

from atto.broker.jetstream import JetStream
from atto.protocol import codec
from atto.protocol.errors import BrokerUnavailable, EventsMissing, InvalidTurn, UnsupportedVersion
from atto.protocol.events import AnyEvent, EventBatch, is_terminal
from atto_client.merge import Merger

GAP_PATIENCE = 0.2
"""Seconds to wait for a missing event before it is looked for in the stream."""
SILENCE_PATIENCE = (1.0, 2.0, 5.0, 10.0)
"""Seconds of silence before the stream is asked whether something was missed; the last one repeats."""
GAP_LIMIT = 30.0
"""Seconds after which a hole that the stream cannot fill is an error: its events have expired."""
LIVE_LIMIT = 1000
"""Batches that may wait for a slow consumer; beyond, they are dropped and read from the stream later."""


class Listener:
    """`async with Listener(…) as listener`, then `listener.events()`, once.

    Entering subscribes; events published after that are heard. `replay`: read what was said before, too.
    """

    def __init__(self, jetstream: JetStream, stream: str, subject: str, *, replay: bool) -> None:
        self._jetstream = jetstream
        self._stream = stream
        self._subject = subject
        self._behind = replay
        self._live: deque[EventBatch] = deque()
        self._read_until = 0
        self._merger = Merger()
        self._wake = asyncio.Event()
        self._closed = False
        self._broken: Exception | None = None
        self._subscription: Any = None

    async def __aenter__(self) -> Self:
        try:
            self._subscription = await self._jetstream.connection.subscribe(self._subject, cb=self._hear)
        except nats.errors.Error as error:
            raise BrokerUnavailable(f"cannot listen on {self._subject}: {error!r}") from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(nats.errors.Error):
            await self._subscription.unsubscribe()

    def catch_up(self) -> None:
        """Something may have been missed (the connection was away): read the stream."""
        self._behind = True
        self._wake.set()

    def close(self, error: Exception) -> None:
        """End the iteration with `error`: nothing more will come."""
        self._broken = error
        self._wake.set()

    async def events(self) -> AsyncGenerator[AnyEvent, None]:
        """The run's events in order, each once, up to the terminal one.

        Raises `EventsMissing`, `UnsupportedVersion`, and what `close` was told.
        """
        async with contextlib.aclosing(self._batches()) as batches:
            async for batch in batches:
                for event in self._merger.add(batch):
                    yield event
                    if is_terminal(event):
                        return

    async def _batches(self) -> AsyncGenerator[EventBatch, None]:
        loop = asyncio.get_running_loop()
        gap_since: float | None = None
        silences = 0
        while True:
            if self._broken is not None:
                raise self._broken
            if self._merger.must_reread:
                self._merger.must_reread = False
                self._behind = True
                self._read_until = 0
            if self._behind:
                self._behind = False
                async with contextlib.aclosing(self._replay()) as replayed:
                    async for batch in replayed:
                        yield batch
            while self._live:
                silences = 0
                yield self._live.popleft()
            gap_since = (gap_since or loop.time()) if self._merger.has_gap else None
            if gap_since is not None and loop.time() - gap_since > GAP_LIMIT:
                raise EventsMissing(
                    f"events of {self._subject} are missing from the stream: they have expired. "
                    "Read the session's snapshot for what was committed."
                )
            patience = (
                GAP_PATIENCE if gap_since else SILENCE_PATIENCE[min(silences, len(SILENCE_PATIENCE) - 1)]
            )
            if not await self._woken(patience):
                silences += 1
                self._behind = True

    async def _woken(self, patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True

    async def _replay(self) -> AsyncGenerator[EventBatch, None]:
        """What the stream has beyond what was read of it before."""
        reading = self._jetstream.read(self._stream, self._subject, start=self._read_until + 1)
        try:
            async with contextlib.aclosing(reading):
                async for stored in reading:
                    self._read_until = stored.sequence
                    batch = _decoded(stored.data)
                    if batch is not None:
                        yield batch
        except BrokerUnavailable:
            # The broker is away or elects a leader: what is live goes on, and silence asks again.
            return

    async def _hear(self, message: Msg) -> None:
        if len(self._live) >= LIVE_LIMIT:
            self._live.clear()
            self._behind = True
        try:
            batch = _decoded(message.data)
        except UnsupportedVersion as error:
            self.close(error)
            return
        if batch is not None:
            self._live.append(batch)
            self._wake.set()


def _decoded(data: bytes) -> EventBatch | None:
    """None for what is no event batch at all. Raises `UnsupportedVersion`."""
    try:
        return codec.decode_batch(data)
    except UnsupportedVersion:
        raise
    except InvalidTurn:
        return None


async def resumed(events: AsyncGenerator[AnyEvent, None], after: int) -> AsyncGenerator[AnyEvent, None]:
    """Leaves out what a listener that saw event `after` already knows.

    If a number was said twice, by an attempt and by its successor, the first time counts: the listener then
    hears some events again, `StepRestarted` first, rather than miss one.
    """
    known = after == 0
    async with contextlib.aclosing(events):
        async for event in events:
            if known or event.seq > after:
                yield event
            known = known or event.seq >= after
