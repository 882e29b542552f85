"""The floor: the least that a hand-written loop needs for the same turns over the same broker, without atto.

Streams are those that atto declares. A turn is published to the work queue and acknowledged; a worker, which
has one consumer for each partition, pulls it; what the model says goes out coalesced, and is captured by the
stream of events; the turn's messages are appended to the session's log by compare-and-set; the last event is
published, and the turn acknowledged. Nothing is kept of all else that atto promises: it heeds no order of a
session's turns, no crash, no reconnect, no cancellation, no error.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator
from typing import Any, Self

import msgspec
import nats
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg

from benchmarks.weather.caller import Heard
from benchmarks.weather.converse import converse, entries
from benchmarks.weather.work import Entry, Pace

PARTITIONS = 64
BATCH = 64
LINGER = 0.002
"""Seconds for which deltas wait for more of them."""

_encode = msgspec.json.encode
_decode = msgspec.json.decode


class Replies:
    """Acknowledged publishes on one inbox."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox = connection.new_inbox()
        self._tokens = itertools.count()
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    async def open(self) -> None:
        await self._connection.subscribe(f"{self._inbox}.*", cb=self._hear, pending_msgs_limit=-1)

    async def publish(self, subject: str, data: bytes, headers: dict[str, str] | None = None) -> Any:
        token = str(next(self._tokens))
        future = self._waiting[token] = asyncio.get_running_loop().create_future()
        await self._connection.publish(subject, data, reply=f"{self._inbox}.{token}", headers=headers)
        reply = _decode(await future)
        if "error" in reply:
            raise RuntimeError(f"{subject}: {reply['error']}")
        return reply

    async def _hear(self, message: Msg) -> None:
        self._waiting.pop(message.subject.rpartition(".")[2]).set_result(message.data)


class FloorWorker:
    """Histories stay in memory: only this process writes them."""

    def __init__(self, connection: Connection, namespace: str, pace: Pace) -> None:
        self._connection = connection
        self._replies = Replies(connection)
        self._namespace = namespace
        self._pace = pace
        self._inbox = connection.new_inbox()
        self._asked: dict[str, int] = {}
        self._histories: dict[str, list[Any]] = {}
        self._sequences: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        await self._replies.open()
        log = {
            "name": f"{self._namespace}-LOG",
            "subjects": [f"{self._namespace}.log.*"],
            "allow_direct": True,
        }
        await self._replies.publish(f"$JS.API.STREAM.CREATE.{self._namespace}-LOG", _encode(log))
        await self._connection.subscribe(f"{self._inbox}.*", cb=self._receive, pending_msgs_limit=-1)
        for partition in range(PARTITIONS):
            await self._consume(partition)

    async def _consume(self, partition: int) -> None:
        stream, name = f"{self._namespace}-TURNS", f"p{partition}"
        config = {
            "name": name,
            "durable_name": name,
            "filter_subject": f"{self._namespace}.turn.{partition}.*",
            "ack_policy": "explicit",
            "max_ack_pending": 1024,
        }
        request = _encode({"stream_name": stream, "config": config, "action": "create"})
        await self._replies.publish(f"$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{name}", request)
        await self._pull(name, BATCH)

    async def _pull(self, consumer: str, batch: int) -> None:
        self._asked[consumer] = self._asked.get(consumer, 0) + batch
        await self._connection.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._namespace}-TURNS.{consumer}",
            _encode({"batch": batch, "expires": 3_600_000_000_000}),
            reply=f"{self._inbox}.{consumer}",
        )

    async def _receive(self, message: Msg) -> None:
        if not message.reply.startswith("$JS.ACK."):
            return
        consumer = message.reply.split(".")[3]
        self._asked[consumer] -= 1
        if self._asked[consumer] <= BATCH // 2:
            await self._pull(consumer, BATCH - self._asked[consumer])
        task = asyncio.create_task(self._run(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, message: Msg) -> None:
        session = message.subject.rpartition(".")[2]
        turn = _decode(message.data)
        speech = _Speech(self._connection, f"{self._namespace}.event.{session}.{turn['run_id']}")
        history = self._histories.setdefault(session, [])
        begun = len(history)
        answer = await converse(history, turn["input"], self._pace, speech.add)
        await speech.flush()
        reply = await self._replies.publish(
            f"{self._namespace}.log.{session}",
            _encode(history[begun:]),
            {"Nats-Expected-Last-Subject-Sequence": str(self._sequences.get(session, 0))},
        )
        self._sequences[session] = reply["seq"]
        await speech.end(answer)
        await self._connection.publish(message.reply, b"+ACK")


class _Speech:
    """Deltas on their way out: those of one moment share a message."""

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection = connection
        self._subject = subject
        self._deltas: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def add(self, delta: str) -> None:
        self._deltas.append(delta)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LINGER, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._task = asyncio.create_task(self.flush())

    async def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._deltas:
            deltas, self._deltas = self._deltas, []
            await self._connection.publish(self._subject, _encode({"deltas": deltas}))

    async def end(self, answer: str) -> None:
        await self._connection.publish(self._subject, _encode({"answer": answer}))


class FloorCaller:
    """Hears all events of the namespace on one subscription."""

    def __init__(self, url: str, namespace: str) -> None:
        self._url = url
        self._namespace = namespace
        self._numbers = itertools.count()
        self._waiting: dict[str, tuple[asyncio.Future[str], Heard]] = {}

    async def __aenter__(self) -> Self:
        self._connection = await nats.connect(self._url, pending_size=16 << 20)
        self._replies = Replies(self._connection)
        await self._replies.open()
        await self._connection.subscribe(
            f"{self._namespace}.event.*.*", cb=self._hear, pending_msgs_limit=-1, pending_bytes_limit=-1
        )
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._connection.close()

    async def turn(self, session: str, text: str, heard: Heard) -> str:
        run_id = str(next(self._numbers))
        future = asyncio.get_running_loop().create_future()
        self._waiting[f"{session}.{run_id}"] = (future, heard)
        await self._replies.publish(
            f"{self._namespace}.turn.{session}",
            _encode({"input": text, "run_id": run_id}),
            {"Nats-Msg-Id": f"{session}.{run_id}"},
        )
        return await future

    async def _hear(self, message: Msg) -> None:
        name = message.subject.split(".", 2)[2]
        future, heard = self._waiting[name]
        event = _decode(message.data)
        for delta in event.get("deltas", ()):
            heard(delta)
        if "answer" in event:
            del self._waiting[name]
            future.set_result(event["answer"])


@contextlib.asynccontextmanager
async def worker(url: str, namespace: str, pace: Pace) -> AsyncGenerator[FloorWorker]:
    connection = await nats.connect(url, pending_size=16 << 20)
    try:
        running = FloorWorker(connection, namespace, pace)
        await running.open()
        yield running
    finally:
        await connection.close()


async def history(connection: Connection, namespace: str, session: str) -> list[Entry]:
    """What the session's log holds."""
    subscription = await connection.jetstream().subscribe(f"{namespace}.log.{session}", ordered_consumer=True)
    messages: list[Any] = []
    while True:
        message = await subscription.next_msg(timeout=5)
        messages += _decode(message.data)
        if message.metadata.num_pending == 0:
            break
    await subscription.unsubscribe()
    return entries(messages)
