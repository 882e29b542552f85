"""Cancellations: heard by every worker, kept until the turn that they are meant for comes up."""

import contextlib
from collections import OrderedDict
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import nats.errors
from nats.aio.msg import Msg

from atto.broker.jetstream import JetStream
from atto.protocol import codec
from atto.protocol.errors import InvalidTurn
from atto.protocol.subjects import Subjects
from atto_workers.delivery import Delivery
from atto_workers.run.scope import RunScope, StopReason

KEPT = 100_000
"""Cancellations remembered for turns that have not come yet; the stream keeps as many."""

Key = tuple[str, str]


class Cancels:
    """`async with Cancels(…)`: from then on no cancellation of the namespace is missed.

    Nobody is asked whether a turn was cancelled: a worker hears all cancellations, and when it starts and
    after a reconnect it reads those that the stream holds. `on_early` is told the session's and the run's
    token of one whose run is not executing here: it may be queued.
    """

    def __init__(
        self, jetstream: JetStream, subjects: Subjects, *, on_early: Callable[[str, str], None]
    ) -> None:
        self._jetstream = jetstream
        self._subjects = subjects
        self._on_early = on_early
        self._early: OrderedDict[Key, str] = OrderedDict()
        self._running: dict[Key, RunScope] = {}
        self._subscription: Any = None

    async def __aenter__(self) -> Self:
        self._subscription = await self._jetstream.connection.subscribe(self._subjects.cancels, cb=self._hear)
        await self.catch_up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(nats.errors.Error):
            await self._subscription.unsubscribe()

    async def catch_up(self) -> None:
        """Reads the cancellations that the stream holds. Raises `BrokerUnavailable`."""
        reading = self._jetstream.read_to_end(self._subjects.cancels_stream, self._subjects.cancels)
        async with contextlib.aclosing(reading):
            async for stored in reading:
                self._take(stored.subject, stored.data)

    def watch(self, delivery: Delivery, scope: RunScope) -> None:
        """Until `unwatch`, `scope` is stopped when the delivery's run is cancelled, or now if it was."""
        key = (delivery.token, delivery.run_token)
        if (reason := self._early.pop(key, None)) is not None:
            scope.stop(StopReason.CANCELLED, reason)
        self._running[key] = scope

    def unwatch(self, delivery: Delivery, scope: RunScope) -> None:
        """The run has ended, or is not this worker's any more.

        Or it is another attempt's by now: where a partition was claimed anew, what ran may end late.
        """
        key = (delivery.token, delivery.run_token)
        if self._running.get(key) is scope:
            del self._running[key]
            self._early.pop(key, None)

    async def _hear(self, message: Msg) -> None:
        self._take(message.subject, message.data)

    def _take(self, subject: str, data: bytes) -> None:
        try:
            reason = codec.decode_cancel(data).reason
        except InvalidTurn:
            reason = ""  # whatever else it says, it asks for a stop
        key = self._subjects.cancelled(subject)
        scope = self._running.get(key)
        if scope is not None:
            scope.stop(StopReason.CANCELLED, reason)
            return
        self._early[key] = reason
        self._early.move_to_end(key)
        while len(self._early) > KEPT:
            self._early.popitem(last=False)
        self._on_early(*key)
