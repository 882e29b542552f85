"""The plain floor: the same turns in a loop as anybody would write it with nats-py's own calls.

As `floor_nats/bus` of the peers' harness: worker and caller on two connections of one process, one durable
consumer, `fetch`, a message for each delta, JSON of the standard library.
"""

import asyncio
import json
from typing import Any, Self

import nats
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, StreamConfig

from benchmarks.weather.caller import Heard
from benchmarks.weather.converse import converse
from benchmarks.weather.work import Pace


class PlainCaller:
    """`async with PlainCaller(…)`, then `turn`. Has its worker with it."""

    def __init__(self, url: str, namespace: str, pace: Pace) -> None:
        self._url = url
        self._namespace = namespace
        self._pace = pace
        self._waiting: dict[str, tuple[asyncio.Future[str], Heard]] = {}
        self._histories: dict[str, list[Any]] = {}
        self._sequences: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._mine = await nats.connect(self._url, pending_size=16 << 20)
        self._theirs = await nats.connect(self._url, pending_size=16 << 20)
        self._calls = self._mine.jetstream(timeout=20)
        self._jetstream = self._theirs.jetstream(timeout=20)
        subject = f"{self._namespace}.log.*"
        await self._jetstream.add_stream(
            StreamConfig(name=f"{self._namespace}-LOG", subjects=[subject], allow_direct=True)
        )
        await self._mine.subscribe(f"{self._namespace}.out.*", cb=self._hear, pending_msgs_limit=-1)
        await self._mine.flush()
        self._pull = await self._jetstream.pull_subscribe(
            f"{self._namespace}.turn.>",
            durable="plain",
            stream=f"{self._namespace}-TURNS",
            config=ConsumerConfig(max_ack_pending=5000, ack_wait=60),
        )
        self._consuming = asyncio.create_task(self._consume())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._consuming.cancel()
        await asyncio.wait([self._consuming])
        await self._mine.close()
        await self._theirs.close()

    async def turn(self, session: str, text: str, heard: Heard) -> str:
        future = asyncio.get_running_loop().create_future()
        self._waiting[session] = (future, heard)
        await self._calls.publish(f"{self._namespace}.turn.{session}", text.encode())
        return await future

    async def _hear(self, message: Msg) -> None:
        future, heard = self._waiting[message.subject.rpartition(".")[2]]
        if message.data[:1] == b"d":
            heard(message.data[1:].decode())
        else:
            future.set_result(message.data[1:].decode())

    async def _consume(self) -> None:
        while True:
            # A `fetch` that times out as a message arrives loses it until it is delivered again.
            for message in await self._pull.fetch(256, timeout=3600):
                task = asyncio.create_task(self._run(message))
                self._tasks.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Nothing is mended here: an error ends the measurement, by the callers that wait."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            for future, _ in self._waiting.values():
                if not future.done():
                    future.set_exception(error)

    async def _run(self, message: Msg) -> None:
        session = message.subject.rpartition(".")[2]
        history = self._histories.setdefault(session, [])
        begun = len(history)
        subject = f"{self._namespace}.out.{session}"

        async def say(delta: str) -> None:
            await self._theirs.publish(subject, b"d" + delta.encode())

        answer = await converse(history, message.data.decode(), self._pace, say)
        stored = await self._jetstream.publish(
            f"{self._namespace}.log.{session}",
            json.dumps(history[begun:]).encode(),
            headers={"Nats-Expected-Last-Subject-Sequence": str(self._sequences.get(session, 0))},
        )
        self._sequences[session] = stored.seq
        await self._theirs.publish(subject, b"f" + answer.encode())
        await message.ack()
