"""The first words of an attempt at a run: taken only if the run's journal is as this attempt knows it."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from atto.broker.jetstream import JetStream
from atto.broker.refusals import MESSAGE_TOO_LARGE, WRONG_LAST_SEQUENCE, WRONG_LAST_SEQUENCE_CONSTANT
from atto.protocol.errors import BrokerRefused, BrokerUnavailable
from atto_workers.backoff import Backoff
from atto_workers.run.health import StreamHealth
from atto_workers.run.standing import GaveUp, Superseded

PATIENCE = 2.0
"""Seconds in which a stream acknowledges an opening; replicas that elect a leader say nothing at all."""

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
EXPECTED_SUBJECT = "Nats-Expected-Last-Subject-Sequence-Subject"


def _nothing() -> None:
    """To be told where nobody wants to be."""


class Opening:
    """Of one attempt, in the journal `subject` of `stream`.

    `after`: the last sequence of the journal as it was read, 0 for a first attempt, which reads nothing: that
    the broker takes the opening is its proof that the run is new, whatever clocks and memories say.
    `kept`: the header that says for how long. `on_refused`: is told, once, that it is not.
    """

    def __init__(
        self,
        jetstream: JetStream,
        stream: str,
        subject: str,
        *,
        after: int,
        health: StreamHealth,
        kept: Mapping[str, str] | None = None,
        on_refused: Callable[[], None] = _nothing,
    ) -> None:
        self.on_refused = on_refused
        self.is_sent = False
        self.is_proven = False
        self._jetstream = jetstream
        self._stream = stream
        self._subject = subject
        self._after = after
        self._health = health
        self._headers = {EXPECTED: str(after), **(kept or {})}
        self._batch = b""
        self._on_proven: Callable[[], None] = _nothing
        self._is_refused = False
        self._is_awaited = False
        self.due = 0.0
        self._waiters: list[asyncio.Future[None]] = []

    async def send(self, batch: bytes, on_proven: Callable[[], None]) -> None:
        """Publishes it, without waiting."""
        self.is_sent = self._is_awaited = True
        self._batch = batch
        self._on_proven = on_proven
        try:
            await self._jetstream.publish_soon(
                self._subject, batch, self._prove, headers=self._headers, refused=self._hear_refusal
            )
        except (BrokerUnavailable, BrokerRefused):
            self._is_awaited = False  # `proven` tries again

    async def proven(self, is_silenced: Callable[[], bool]) -> None:
        """Returns once the stream has it, however long the broker is away.

        Raises `Superseded` if somebody spoke before, `GaveUp` once the worker is to be silent.
        """
        backoff = Backoff()
        while not self.is_proven:
            if is_silenced():
                raise GaveUp
            if self._is_refused:
                raise Superseded(f"{self._subject} is not as it was read")
            if self._is_awaited:
                await self._hear()
                continue
            try:
                await self._try_again()
            except (BrokerUnavailable, BrokerRefused) as error:
                if isinstance(error, BrokerRefused) and error.err_code == MESSAGE_TOO_LARGE:
                    raise
                self._health.failed(error)
                await backoff.pause()
            else:
                self._health.took()

    def disturb(self) -> None:
        """The connection was lost: what was published may not have arrived, nor will its reply."""
        self._is_awaited = False
        self.ring()

    def ring(self) -> None:
        """There is news, or no answer in time."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _hear(self) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiters.append(waiter)
        self.due = loop.time() + PATIENCE
        self._jetstream.alarms.set(self)
        try:
            await waiter
        finally:
            self._waiters.remove(waiter)
            if not self._waiters:
                self._jetstream.alarms.clear(self)
        self._is_awaited = False

    async def _try_again(self) -> None:
        try:
            await self._jetstream.publish(self._subject, self._batch, headers=self._headers, timeout=PATIENCE)
        except BrokerRefused as error:
            if error.err_code == WRONG_LAST_SEQUENCE_CONSTANT:
                raise BrokerUnavailable(str(error)) from error  # one is under way still
            if error.err_code != WRONG_LAST_SEQUENCE:
                raise
            await self._look()
        else:
            self._prove()

    async def _look(self) -> None:
        """Whether that which stands in the way is this very message, whose reply was lost."""
        reading = self._jetstream.read(self._stream, self._subject, start=self._after + 1)
        async with contextlib.aclosing(reading):
            async for stored in reading:
                if stored.data == self._batch:
                    self._prove()
                else:
                    self._refuse()
                return
        newest = await self._jetstream.last(self._stream, self._subject)
        if newest is None or newest.sequence <= self._after:
            self._refuse()  # what was read of it is gone
            return
        raise BrokerUnavailable(f"a replica of {self._stream} is behind its leader")

    def _prove(self) -> None:
        self.is_proven = True
        self.ring()
        self._on_proven()
        self.forget()

    def forget(self) -> None:
        """Tells nobody any more: a cycle for each run, of a log and this, would keep the collector busy."""
        self._on_proven = self.on_refused = _nothing

    def _hear_refusal(self, error: BrokerUnavailable | BrokerRefused) -> None:
        if isinstance(error, BrokerRefused) and error.err_code == WRONG_LAST_SEQUENCE:
            self._refuse()
        else:
            self.disturb()

    def _refuse(self) -> None:
        if not self._is_refused:
            self._is_refused = True
            self.ring()
            self.on_refused()
