"""Cancellations: heard by every worker, kept in a stream until the turn that they are meant for comes up."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import msgspec
import nats.errors
from nats.aio.msg import Msg

from atto.broker.hearing import subscribe
from atto.broker.jetstream import JetStream
from atto.broker.refusals import STREAM_NOT_FOUND
from atto.protocol import codec
from atto.protocol.errors import BrokerRefused, BrokerUnavailable, InvalidTurn
from atto.protocol.subjects import Subjects
from atto.protocol.turns import cut_reason
from atto_workers.delivery import Delivery
from atto_workers.membership import Membership
from atto_workers.run.scope import RunScope, StopReason
from atto_workers.run.standing import GaveUp

KEPT = 100_000
"""Cancellations that the stream keeps at most."""
RECENT = 1_000
"""Reasons remembered of the cancellations that were heard last: the stream may not have stored them yet."""
RETRY_PAUSE = 0.2
"""Seconds before a broker that is away is asked again."""
CATCH_UP_PATIENCE = 30.0
"""Seconds in which the broker names the runs whose cancellations it holds; 100,000 take half a second."""

_AT_ONCE = 5_000  # a few milliseconds

Key = tuple[str, str]


class _State(msgspec.Struct):
    subjects: dict[str, int] | None = None


class _Info(msgspec.Struct):
    state: _State
    total: int = 0


_infos = msgspec.json.Decoder(_Info)


class Cancels:
    """`async with Cancels(…)`: from then on no cancellation of the namespace is missed.

    A worker hears all cancellations; when it starts and after a reconnect it asks which runs those that the
    stream holds are for. It remembers that a run may have been cancelled, in memory of a fixed size, and
    reads the reason from the stream once the run comes up: other runs cost no round trip.

    `on_early` is told the session's token, the run's and the reason of one whose run is not executing here:
    it may be queued. `held`: the turns that the worker holds.
    """

    def __init__(
        self,
        jetstream: JetStream,
        subjects: Subjects,
        *,
        on_early: Callable[[str, str, str], None],
        held: Callable[[], Iterable[Delivery]],
    ) -> None:
        self._jetstream = jetstream
        self._subjects = subjects
        self._on_early = on_early
        self._held = held
        self._early = Membership()
        self._renewed: Membership | None = None
        self._recent: OrderedDict[Key, str] = OrderedDict()
        self._running: dict[Key, RunScope] = {}
        self._stack: contextlib.AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            subscription = await subscribe(self._jetstream.connection, self._subjects.cancels, self._hear)
            stack.push_async_callback(subscription.unsubscribe)
            await self.catch_up()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            with contextlib.suppress(nats.errors.Error):
                await stack.aclose()

    @property
    def is_worn(self) -> bool:
        """Whether so many were heard that `catch_up` should sort out those that are gone by now."""
        return self._early.added > KEPT

    async def catch_up(self) -> None:
        """Asks which cancellations the stream holds. Raises `BrokerUnavailable`."""
        renewed = self._renewed = Membership()
        try:
            stored = await self._stored()
            for number, subject in enumerate(stored):
                renewed.add(self._subjects.cancelled(subject))
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            self._early = renewed
        finally:
            self._renewed = None
        for delivery in list(self._held()):
            if self._subject(delivery) in stored:
                await self._catch_up_with(delivery)

    async def watch(self, delivery: Delivery, scope: RunScope) -> None:
        """Until `unwatch`, `scope` is stopped when the delivery's run is cancelled, or now if it was.

        Asks the broker only where it may have been, and waits for one that is away. Raises `GaveUp` once the
        claim is no longer open.
        """
        key = (delivery.token, delivery.run_token)
        self._running[key] = scope
        if key not in self._early:
            return
        reason = self._recent.pop(key, None)
        if reason is None:
            reason = await self._reason(delivery)
        if reason is not None:
            scope.stop(StopReason.CANCELLED, reason)

    def unwatch(self, delivery: Delivery, scope: RunScope) -> None:
        """The run has ended, or is not this worker's any more.

        Or it is another attempt's by now: where a partition was claimed anew, what ran may end late.
        """
        key = (delivery.token, delivery.run_token)
        if self._running.get(key) is scope:
            del self._running[key]
            self._recent.pop(key, None)

    def _hear(self, message: Msg) -> None:
        self._take(message.subject, message.data)

    def _take(self, subject: str, data: bytes) -> None:
        key, reason = self._subjects.cancelled(subject), _reason_of(data)
        scope = self._running.get(key)
        if scope is not None:
            scope.stop(StopReason.CANCELLED, reason)
            return
        self._early.add(key)
        if self._renewed is not None:
            self._renewed.add(key)
        self._recent[key] = reason
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        self._on_early(*key, reason)

    async def _catch_up_with(self, delivery: Delivery) -> None:
        """One that this worker holds was cancelled while it heard nothing."""
        stored = await self._jetstream.last(self._subjects.cancels_stream, self._subject(delivery))
        if stored is not None:
            self._take(stored.subject, stored.data)

    async def _reason(self, delivery: Delivery) -> str | None:
        """Why the run was cancelled; None if it was not."""
        while True:
            try:
                stored = await self._jetstream.last(self._subjects.cancels_stream, self._subject(delivery))
            except BrokerUnavailable:
                if not delivery.claim.is_open:
                    raise GaveUp from None
                await asyncio.sleep(RETRY_PAUSE)
            else:
                return None if stored is None else _reason_of(stored.data)

    async def _stored(self) -> dict[str, int]:
        """The subjects of all that the stream holds, without what they say: it is a hundred times faster."""
        stored: dict[str, int] = {}
        while True:
            request = {"subjects_filter": self._subjects.cancels, "offset": len(stored)}
            name = f"STREAM.INFO.{self._subjects.cancels_stream}"
            try:
                reply = await self._jetstream.api(name, request, timeout=CATCH_UP_PATIENCE)
            except BrokerRefused as error:
                if error.err_code != STREAM_NOT_FOUND:
                    raise
                return stored
            info = _infos.decode(reply)
            if not info.state.subjects:
                return stored
            stored.update(info.state.subjects)
            if len(stored) >= info.total:
                return stored

    def _subject(self, delivery: Delivery) -> str:
        return self._subjects.cancel_of(delivery.token, delivery.run_token)


def _reason_of(data: bytes) -> str:
    try:
        return cut_reason(codec.decode_cancel(data).reason)
    except InvalidTurn:
        return ""  # whatever else it says, it asks for a stop
