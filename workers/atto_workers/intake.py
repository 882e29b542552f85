"""Taking turns from the broker: raw pulls, one consumer a partition, no more than the worker can hold.

nats-py's `fetch` costs four times the CPU and stalls after a broker restart. Here one subscription receives
for all partitions; a message says in its reply subject which consumer it is of, a status in its own.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import msgspec
import nats.errors
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg

from atto.broker.hearing import subscribe
from atto.broker.reading import status
from atto.protocol.subjects import Subjects
from atto_workers.credits import Credits
from atto_workers.delivery import UNKNOWN_HORIZON, Claim, Delivery, place_of
from atto_workers.ownership import ACK_WAIT

EXPIRES = 30.0
"""Seconds for which one pull stands."""
HEARTBEAT = 2.0
"""Seconds of silence after which the broker says that a pull still stands, and what it delivered last."""
PATIENCE = 2.5 * HEARTBEAT
"""Seconds of silence after which a pull is taken for lost."""
LOOK_PERIOD = 1.0
"""Seconds between two looks at all pulls."""

# Of a pull with a bound in bytes: it has brought what it may, and the next turn comes with the next one.
_FILLED = frozenset({"Message Size Exceeds MaxBytes", "Batch Completed"})
_SECOND = 1_000_000_000
_DIGITS = 20
_log = logging.getLogger("atto.worker")


class _Pulling(msgspec.Struct):
    """How a claim's pulls stand: from which `consumer`; `asked` for and not yet delivered; `heard` of, in the
    loop's time; `next`, the number of the consumer's next delivery.
    """

    claim: Claim
    consumer: str
    asked: int = 0
    heard: float = 0.0
    next: int = 1


class Intake:
    """`async with Intake(…)`. `credits`: what the worker may hold, running or queued.

    `deliver` gets each turn once, those of a session in order. `doubt` is told of a claim that may be lost,
    `missed` of one that was delivered something which never came (the connection was lost with it in
    transit): what comes after it must not overtake it, so only a new consumer can go on.
    """

    def __init__(
        self,
        connection: Connection,
        subjects: Subjects,
        *,
        credits: Credits,  # noqa: A002 - the field's word
        deliver: Callable[[Delivery], None],
        doubt: Callable[[Claim], None],
        missed: Callable[[Claim], None],
    ) -> None:
        self._connection = connection
        self._subjects = subjects
        self._credits = credits
        self._deliver = deliver
        self._doubt = doubt
        self._missed = missed
        self._inbox = connection.new_inbox()
        self._pulls: dict[str, _Pulling] = {}
        self._hungry: dict[str, _Pulling] = {}
        self._starved = False
        self._wake = asyncio.Event()
        self._subscription: Any = None

    async def __aenter__(self) -> Self:
        self._subscription = await subscribe(self._connection, f"{self._inbox}.*", self._receive)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._subscription.unsubscribe()
        except nats.errors.Error as lost:
            _log.debug("unsubscribe: %r", lost)

    async def open(self, claim: Claim) -> None:
        """Begins to pull from the consumer that delivers to the claim."""
        consumer = claim.tenure.delivery
        pulling = self._pulls[consumer] = _Pulling(claim, consumer)
        await self._pull(pulling)

    def close(self, claim: Claim) -> None:
        """Ends it. What is still on its way will be delivered to the partition's next owner."""
        self._pulls.pop(claim.tenure.delivery, None)

    def finished(self, delivery: Delivery) -> None:
        """A turn is no longer held."""
        self._credits.give_back(len(delivery.data))
        if self._starved and not self._credits.is_spent:
            self._wake.set()

    def reconnected(self) -> None:
        """The broker has forgotten all pulls."""
        for pulling in self._pulls.values():
            pulling.asked = 0
        self._hungry.update(self._pulls)
        self._wake.set()

    async def serve(self) -> None:
        """Pulls again wherever pulls ran out or were lost, and keeps what is held from being redelivered."""
        loop = asyncio.get_running_loop()
        look_due, heartbeat_due = loop.time() + LOOK_PERIOD, loop.time() + ACK_WAIT / 4
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(look_due):
                    await self._wake.wait()
            self._wake.clear()
            hungry, self._hungry = self._hungry, {}
            for pulling in hungry.values():
                await self._pull(pulling)
            if self._starved and not self._credits.is_spent:
                look_due = loop.time()
            if loop.time() >= look_due:
                look_due = loop.time() + LOOK_PERIOD
                await self._look()
            if loop.time() >= heartbeat_due:
                heartbeat_due = loop.time() + ACK_WAIT / 4
                await self._hold()

    async def _look(self) -> None:
        """At all pulls."""
        now = asyncio.get_running_loop().time()
        self._starved = False
        for pulling in list(self._pulls.values()):
            if pulling.asked and now - pulling.heard > PATIENCE:
                pulling.asked = 0
                self._doubt(pulling.claim)
            await self._pull(pulling)

    def _batch(self, pulling: _Pulling) -> int:
        """How many turns of a partition to ask for: none while half of its allowance is on its way."""
        if not pulling.claim.is_open or self._pulls.get(pulling.consumer) is not pulling:
            return 0  # closed meanwhile, or closed and opened anew
        if self._credits.is_spent:
            self._starved = True
            return 0
        allowance = self._credits.allowance(len(self._pulls))
        batch = allowance - pulling.asked
        return batch if batch > allowance // 2 else 0

    async def _pull(self, pulling: _Pulling) -> None:
        batch = self._batch(pulling)
        if not batch:
            return
        request = msgspec.json.encode(
            {
                "batch": batch,
                "max_bytes": self._credits.bytes_of_pull(len(self._pulls)),
                "expires": int(EXPIRES * _SECOND),
                "idle_heartbeat": int(HEARTBEAT * _SECOND),
            }
        )
        consumer = pulling.consumer
        try:
            await self._connection.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._subjects.turns_stream}.{consumer}",
                request,
                reply=f"{self._inbox}.{consumer}",
            )
        except nats.errors.Error as error:
            _log.debug("pull from %s: %r", consumer, error)
            return
        pulling.asked += batch
        pulling.heard = asyncio.get_running_loop().time()

    def _receive(self, message: Msg) -> None:
        if message.subject.startswith(self._inbox):
            self._hear_status(message)
            return
        place = place_of(message.reply)
        if place is None:
            _log.warning("not delivered by a stream, and left alone: a message on %r", message.subject)
            return
        pulling = self._pulls.get(place.consumer)
        if pulling is None or not pulling.claim.is_open:
            return
        pulling.asked = max(0, pulling.asked - 1)
        pulling.heard = asyncio.get_running_loop().time()
        if place.number > pulling.next:
            self._missed(pulling.claim)
            return
        if place.number < pulling.next:
            # A broker that lost the end of its records tells it once more. So does a node of a cluster that
            # was restarted and has made the consumer again: its deliveries all count as first ones.
            pulling.claim.horizon = UNKNOWN_HORIZON
            self._doubt(pulling.claim)
        pulling.next = place.number + 1
        held = pulling.claim.held.get(place.sequence)
        if held is not None and held.timestamp_ms != place.timestamp_ms:
            # It lost the end of the stream, too, and the number is another turn's now. No acknowledgement of
            # the lost one may remove that.
            del pulling.claim.held[place.sequence]
            held.reply = ""
            self._missed(pulling.claim)
            return
        if held is None:
            delivery = Delivery(pulling.claim, place, message, self._subjects)
            self._credits.take(len(delivery.data))
            self._deliver(delivery)
        if self._batch(pulling):
            self._hungry[place.consumer] = pulling
            self._wake.set()

    def _hear_status(self, message: Msg) -> None:
        """A turn keeps its own subject, whatever its headers say; a status comes on the pull's."""
        code = status(message)
        pulling = self._pulls.get(message.subject.rpartition(".")[2])
        if pulling is None or code is None:
            return
        pulling.heard = asyncio.get_running_loop().time()
        headers = message.headers or {}
        if code == "100":
            if _number(headers.get("Nats-Last-Consumer")) >= pulling.next:
                self._missed(pulling.claim)
            return
        pending = headers.get("Nats-Pending-Messages")
        pulling.asked = max(0, pulling.asked - _number(pending)) if pending else 0
        if code == "408" or headers.get("Description") in _FILLED:
            self._hungry[pulling.consumer] = pulling
            self._wake.set()
            return
        # 409: the consumer was deleted, or its leader moved; 503: there is no consumer, or no JetStream now.
        # The next look, within a second, pulls again if the claim still stands.
        self._doubt(pulling.claim)

    async def _hold(self) -> None:
        for pulling in list(self._pulls.values()):
            for delivery in list(pulling.claim.held.values()):
                try:
                    await self._connection.publish(delivery.reply, b"+WPI")
                except nats.errors.Error as error:
                    _log.debug("in-progress: %r", error)
                    return


def _number(text: str | None) -> int:
    """Of a header; 0 where there is none, or something else."""
    return int(text) if text is not None and len(text) < _DIGITS and text.isdecimal() else 0
