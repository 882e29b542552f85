"""Presence: which workers live.

A worker renews its key in the members bucket, which expires otherwise, and answers requests to its own
subject. Nobody listening there is instant proof that the process is gone; a silent listener (paused, hung,
cut off) is dead once its key has expired.

Workers stand in a ring, in the order of their ids. Each asks the next few, once a period, and tells the
others of one that is gone. So what a worker does in a second does not grow with their number; only in doubt
is anybody else asked.
"""

import asyncio
import logging
import os
import socket
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import nats.errors
from nats.aio.msg import Msg

from atto.broker.jetstream import JetStream, Stored
from atto.broker.nats_internals import reconnect
from atto.protocol.errors import BrokerRefused, BrokerUnavailable, NoResponders
from atto.protocol.subjects import Subjects

PERIOD = 1.0
"""Seconds between two renewals of a worker's key, and between two pings of its neighbours."""
TIME_OUT = 3
"""Seconds after which a worker that says nothing is taken for dead (the key's TTL: whole seconds)."""
PING_PATIENCE = 0.5
"""Seconds in which a living worker answers a ping; a slower one still has its key."""
PUT_PATIENCE = 1.0
"""Seconds in which a key is renewed; later is the next time."""
EXPIRED = TIME_OUT + 1
"""Seconds by which a key is older than the newest one, if it should have expired long ago."""
OVERDUE = 1.5 * PERIOD
"""Seconds by which a key is older than the newest one, if its worker has missed a renewal."""
REUNION = 1.5
"""Seconds after a reconnect in which others that were cut off as well may still be on their way back."""
UNANSWERED = 4
"""Renewals in a row without an answer after which a worker leaves its connection for another one. One
that hears nothing is of no use to anybody; replicas that elect a leader need a few seconds, too."""
STAND_IN_AGE = TIME_OUT / 2
"""Seconds without a renewal after which somebody else renews: a busy machine is late by less."""
NEIGHBOURS = 2
"""Workers that each one looks after."""
ASSURANCE = TIME_OUT - 1.0
"""Seconds for which a renewal can be relied on: others wait longer before they take over."""

_EVER = datetime.max.replace(tzinfo=UTC)
_LOOK = b"look"
_log = logging.getLogger("atto.worker")


class About(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a worker says of itself, for people: in its key, and in its answer to a ping."""

    host: str = ""
    pid: int = 0
    agent: str = ""

    @classmethod
    def own(cls, agent: str) -> "About":
        """Of a worker of this process."""
        return cls(socket.gethostname(), os.getpid(), agent)


class Roll(NamedTuple):
    """`members` share the partitions. `living`: members, plus workers that are leaving but still answer."""

    members: set[str]
    living: set[str]


class Renewals:
    """Since when a key has been renewed without a gap in which it may have expired. Times are monotonic."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent = self._since = float("-inf")

    def renewed(self, sent: float) -> None:
        """The broker has a renewal that left at `sent`."""
        if self._clock() - self._sent >= TIME_OUT:
            self._since = sent
        self._sent = max(self._sent, sent)

    @property
    def age(self) -> float:
        """Seconds since the last renewal left."""
        return self._clock() - self._sent

    def prove(self, moment: float) -> bool:
        """Whether nobody can have found the key expired between `moment` and now."""
        return self._since <= moment and self._clock() - self._sent < ASSURANCE


class Presence:
    """`async with Presence(…)`: answers pings, and hears of changes. `serve` renews the key, and looks after
    the neighbours. `renewals`: of another one, if this one stands in for it.
    """

    def __init__(
        self,
        jetstream: JetStream,
        subjects: Subjects,
        worker: str,
        *,
        about: About,
        on_news: Callable[[], None],
        renewals: Renewals | None = None,
    ) -> None:
        self.renewals = renewals or Renewals()
        self._about = msgspec.json.encode(about)
        self._on_news = on_news
        self._jetstream = jetstream
        self._subjects = subjects
        self._worker = worker
        self._stream = f"KV_{subjects.members_bucket}"
        self._keys = f"$KV.{subjects.members_bucket}"
        self._reconnects = jetstream.connection.stats["reconnects"]
        self._back_at = float("-inf")
        self._is_heard = True
        self._unanswered = 0
        self._known: set[str] = set()
        self._doubted: set[str] = set()
        self.silent: frozenset[str] = frozenset()
        """Workers that were dead in the last roll since they said nothing: they may live, unlike those that
        nobody listens for."""
        self._neighbours: Sequence[str] = ()
        self._stack: AsyncExitStack | None = None

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for subject, callback in (
                (self._subjects.worker(self._worker), self._answer),
                (self._subjects.roll_call, self._hear),
            ):
                subscription: Any = await self._jetstream.connection.subscribe(subject, cb=callback)
                stack.push_async_callback(_unsubscribe, subscription)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    async def serve(self) -> None:
        """Renews the key and looks after the neighbours, until cancelled."""
        while True:
            due = time.monotonic() + PERIOD
            await self._try_to_beat()
            await self._look_after(self._neighbours)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def beat(self) -> None:
        """Renews the key. Raises `BrokerUnavailable`, `BrokerRefused`.

        Over a connection that gave no answer the last time, nothing is renewed before it gives one: a worker
        that can speak and not hear does no work, and others must take over.
        """
        was_heard, self._is_heard = self._is_heard, False
        if not was_heard:
            await self._jetstream.request(self._subjects.worker(self._worker), timeout=PING_PATIENCE)
        sent = time.monotonic()
        await self._put(self._about, {"Nats-TTL": f"{TIME_OUT}s"})
        self._is_heard = True
        self.renewals.renewed(sent)

    async def _try_to_beat(self) -> None:
        """Leaves a connection on which nothing is answered any more, be it that pings of the protocol are."""
        try:
            await self.beat()
        except (NoResponders, BrokerRefused):
            self._unanswered = 0  # an answer, too
        except BrokerUnavailable:
            connection = self._jetstream.connection
            self._unanswered = self._unanswered + 1 if connection.is_connected else 0
            if self._unanswered >= UNANSWERED:
                self._unanswered = 0
                _log.warning(
                    "worker %s: the broker has not answered %d renewals of its presence: it connects anew, "
                    "and its partitions go to others",
                    *(self._worker, UNANSWERED),
                )
                await reconnect(connection, "the broker does not answer")
        else:
            self._unanswered = 0

    async def leave(self) -> None:
        """Takes the key away: the others share the partitions among themselves from now on."""
        if not self._jetstream.connection.is_connected:
            return  # the key expires, and a worker that is told to stop does not wait for a broker
        with suppress(BrokerUnavailable, BrokerRefused):
            await self._put(b"", {"KV-Operation": "DEL", "Nats-TTL": "1s"})
        await self.announce()

    async def announce(self, gone: str = "") -> None:
        """Tells all others that something changed, or who is gone."""
        await self._publish(self._subjects.roll_call, f"{self._worker} {gone}".rstrip().encode())

    async def tell(self, worker: str) -> None:
        """Tells one worker that there is something for it."""
        await self._publish(self._subjects.worker(worker), _LOOK)

    async def roll(self, owners: Iterable[str]) -> Roll:
        """Who is here; `owners` are asked even if they have no key. Raises `BrokerUnavailable`."""
        present, overdue = await self._present()
        self._notice_reconnect()
        here = present | set(owners) | {self._worker}
        doubted, self._doubted = self._doubted & here, set()
        asked = ((here - present) | overdue | doubted) - {self._worker}
        living = here - await self._dead(asked, present)
        await self._tell_of_the_gone(living)
        self._known, self._neighbours = living, _after(self._worker, living)
        return Roll(living & (present | {self._worker}), living)

    async def _present(self) -> tuple[set[str], set[str]]:
        """Whose keys are there, and which of them have missed a renewal."""
        keys = await self._jetstream.read_last(self._stream, [f"{self._keys}.>"])
        written = {key.subject.rpartition(".")[2]: _time(key) for key in keys if key.data}
        newest = max(written.values(), default=_EVER)
        # A broker that was killed may bring keys back that had expired, and never let go of them again
        # (seen with 2.15.1, after minutes of running). Our own is new: it was renewed a moment ago.
        return (
            {worker for worker, at in written.items() if at > newest - timedelta(seconds=EXPIRED)},
            {worker for worker, at in written.items() if at <= newest - timedelta(seconds=OVERDUE)},
        )

    def _notice_reconnect(self) -> None:
        reconnects = self._jetstream.connection.stats["reconnects"]
        if reconnects != self._reconnects:
            self._reconnects = reconnects
            self._back_at = time.monotonic()

    async def _dead(self, workers: Collection[str], known: Collection[str]) -> set[str]:
        """Those of `workers` that do not live."""
        async with asyncio.TaskGroup() as group:
            pings = {
                worker: group.create_task(self._lives(worker, known=worker in known)) for worker in workers
            }
        self.silent = frozenset(worker for worker, ping in pings.items() if ping.result() is None)
        return {worker for worker, ping in pings.items() if not ping.result()}

    async def _lives(self, worker: str, *, known: bool) -> bool | None:
        """None: it says nothing, and has no key, and so counts as dead."""
        try:
            await self._jetstream.request(self._subjects.worker(worker), timeout=PING_PATIENCE)
        except NoResponders:
            # A broker that was restarted is without those who have not found it yet: only their keys tell.
            return known and time.monotonic() - self._back_at < REUNION
        except BrokerUnavailable:
            return known or None
        return True

    async def _look_after(self, neighbours: Collection[str]) -> None:
        """Finds out whether they live; news make the steward look, and that finds out the rest."""
        self._notice_reconnect()
        async with asyncio.TaskGroup() as group:
            pings = {worker: group.create_task(self._answers(worker)) for worker in neighbours}
        if not all(ping.result() for ping in pings.values()):
            self._doubted.update(worker for worker, ping in pings.items() if not ping.result())
            self._on_news()

    async def _answers(self, worker: str) -> bool:
        try:
            await self._jetstream.request(self._subjects.worker(worker), timeout=PING_PATIENCE)
        except BrokerUnavailable:
            return not self._jetstream.connection.is_connected  # nobody else can be blamed for that
        return True

    async def _tell_of_the_gone(self, living: Collection[str]) -> None:
        for worker in self._neighbours:
            if worker in self._known and worker not in living:
                await self.announce(gone=worker)

    async def _put(self, data: bytes, headers: dict[str, str]) -> None:
        await self._jetstream.publish(
            f"{self._keys}.{self._worker}", data, headers=headers, timeout=PUT_PATIENCE
        )

    async def _publish(self, subject: str, data: bytes) -> None:
        with suppress(nats.errors.Error):
            await self._jetstream.connection.publish(subject, data)

    async def _answer(self, message: Msg) -> None:
        if message.data == _LOOK:
            self._on_news()
        elif self._subjects.may_be_answered(message.reply):
            await self._publish(message.reply, self._about)

    async def _hear(self, message: Msg) -> None:
        sender, _, gone = message.data.decode(errors="replace").partition(" ")
        if sender != self._worker:
            if gone in self._known:
                self._doubted.add(gone)
            self._on_news()


def _after(worker: str, workers: Collection[str]) -> Sequence[str]:
    """The next few in the ring."""
    ring = sorted(set(workers) | {worker})
    at = bisect_right(ring, worker)
    return [each for each in (*ring[at:], *ring[: at - 1])[:NEIGHBOURS] if each != worker]


def _time(key: Stored) -> datetime:
    return msgspec.convert(key.headers["Nats-Time-Stamp"], datetime)


async def _unsubscribe(subscription: Any) -> None:
    with suppress(nats.errors.Error):
        await subscription.unsubscribe()
