"""Presence: which workers live.

A worker renews its key in the members bucket, which expires otherwise, and answers requests to its own
subject. Nobody listening there is instant proof that the process is gone; a silent listener (paused, hung,
cut off) is dead once its key has expired.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec
import nats.errors
from nats.aio.msg import Msg

from atto.broker.jetstream import JetStream, Stored
from atto.protocol.errors import BrokerRefused, BrokerUnavailable, NoResponders
from atto.protocol.subjects import Subjects

TIME_OUT = 3
"""Seconds after which a worker that says nothing is taken for dead (the key's TTL: whole seconds)."""
PING_PATIENCE = 0.5
"""Seconds in which a living worker answers a ping; a slower one still has its key."""
PUT_PATIENCE = 1.0
"""Seconds in which a key is renewed; later is the next time."""
EXPIRED = TIME_OUT + 1
"""Seconds by which a key is older than the newest one, if it should have expired long ago."""
REUNION = 1.5
"""Seconds after a reconnect in which others that were cut off as well may still be on their way back."""


_EVER = datetime.max.replace(tzinfo=UTC)


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
    """`members` share the partitions. `living` are those and who still answers although it is leaving."""

    members: set[str]
    living: set[str]


class Presence:
    """`async with Presence(…)`: answers pings, and hears of changes. `beat` renews the key."""

    def __init__(
        self,
        jetstream: JetStream,
        subjects: Subjects,
        worker: str,
        *,
        about: About,
        on_news: Callable[[], None],
    ) -> None:
        self._about = msgspec.json.encode(about)
        self._on_news = on_news
        self._jetstream = jetstream
        self._subjects = subjects
        self._worker = worker
        self._stream = f"KV_{subjects.members_bucket}"
        self._keys = f"$KV.{subjects.members_bucket}"
        self._reconnects = jetstream.connection.stats["reconnects"]
        self._back_at = -REUNION
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for subject, callback in (
            (self._subjects.worker(self._worker), self._answer),
            (self._subjects.roll_call, self._hear),
        ):
            subscription: Any = await self._jetstream.connection.subscribe(subject, cb=callback)
            self._stack.push_async_callback(_unsubscribe, subscription)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def beat(self) -> None:
        """Renews the key."""
        await self._put(self._about, {"Nats-TTL": f"{TIME_OUT}s"})

    async def leave(self) -> None:
        """Takes the key away: the others share the partitions among themselves from now on."""
        if not self._jetstream.connection.is_connected:
            return  # the key expires, and a worker that is told to stop does not wait for a broker
        with suppress(BrokerUnavailable, BrokerRefused):
            await self._put(b"", {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": "1s"})
        await self.announce()

    async def announce(self) -> None:
        """Tells the others that something changed."""
        with suppress(nats.errors.Error):
            await self._jetstream.connection.publish(self._subjects.roll_call, self._worker.encode())

    async def roll(self, owners: Iterable[str]) -> Roll:
        """Who is here; `owners` are asked even if they have no key. Raises `BrokerUnavailable`."""
        present = await self._present()
        self._notice_reconnect()
        others = list((present | set(owners)) - {self._worker})
        answers = await asyncio.gather(*(self._lives(other, known=other in present) for other in others))
        living = {self._worker, *(other for other, lives in zip(others, answers, strict=True) if lives)}
        return Roll(living & (present | {self._worker}), living)

    async def _present(self) -> set[str]:
        keys = await self._jetstream.read_last(self._stream, [f"{self._keys}.>"])
        written = {key.subject.rpartition(".")[2]: _time(key) for key in keys if key.data}
        # A broker that was killed may bring keys back that had expired, and never let go of them again
        # (seen with 2.15.1, after minutes of running). Our own is new: it was renewed a moment ago.
        alive_since = max(written.values(), default=_EVER) - timedelta(seconds=EXPIRED)
        return {worker for worker, at in written.items() if at > alive_since}

    def _notice_reconnect(self) -> None:
        reconnects = self._jetstream.connection.stats["reconnects"]
        if reconnects != self._reconnects:
            self._reconnects = reconnects
            self._back_at = asyncio.get_running_loop().time()

    async def _lives(self, worker: str, *, known: bool) -> bool:
        try:
            await self._jetstream.request(self._subjects.worker(worker), timeout=PING_PATIENCE)
        except NoResponders:
            # A broker that was restarted is without those who have not found it yet: only their keys tell.
            return known and asyncio.get_running_loop().time() - self._back_at < REUNION
        except BrokerUnavailable:
            return known
        return True

    async def _put(self, data: bytes, headers: dict[str, str]) -> None:
        await self._jetstream.publish(
            f"{self._keys}.{self._worker}", data, headers=headers, timeout=PUT_PATIENCE
        )

    async def _answer(self, message: Msg) -> None:
        with suppress(nats.errors.Error):
            await message.respond(self._about)

    async def _hear(self, message: Msg) -> None:
        if message.data != self._worker.encode():
            self._on_news()


def _time(key: Stored) -> datetime:
    return msgspec.convert(key.headers["Nats-Time-Stamp"], datetime)


async def _unsubscribe(subscription: Any) -> None:
    with suppress(nats.errors.Error):
        await subscription.unsubscribe()
