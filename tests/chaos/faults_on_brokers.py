"""What is done to brokers, to what they hold, and to Postgres."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec

from atto.broker.connection import connected
from atto.broker.jetstream import JetStream
from atto.protocol.errors import BrokerRefused, BrokerUnavailable
from atto.protocol.subjects import Subjects
from tests.chaos.records import Fault, now
from tests.chaos.victims import Action, Victims
from tests.postgres import Postgres

FULL = {"max_bytes": 4096, "discard": "new"}
"""As an operator may bound a stream: from then on it takes nothing."""


class BrokerFaults:
    """One of them at a time."""

    def __init__(self, victims: Victims, postgres: Postgres | None) -> None:
        self._fleet = victims.fleet
        self._chance = victims.chance
        self._events = Subjects(self._fleet.plan.namespace).events_stream
        self._broker = asyncio.Lock()
        self._postgres = postgres
        self._database = asyncio.Lock()

    def actions(self) -> dict[str, Action]:
        return {
            "broker_kill": self._alone("broker_kill", self._kill_broker),
            "events_full": self._alone("events_full", self._fill_events),
            "events_deleted": self._alone("events_deleted", self._delete_events),
            "node_kill": self._alone("node_kill", self._kill_node),
            "node_pause": self._alone("node_pause", self._pause_node),
            "postgres_restart": self._restart_postgres,
        }

    def _alone(self, name: str, inflict: Callable[[], Awaitable[None]]) -> Action:
        async def action() -> Fault | None:
            if self._broker.locked():
                return None
            async with self._broker:
                at = now()
                await inflict()
                return Fault(t=at, name=name, until=now(), target="broker")

        return action

    async def _kill_broker(self) -> None:
        await self._fleet.kill_broker()
        await asyncio.sleep(self._chance.uniform(0.05, 1.5))
        await self._fleet.restart_broker()

    async def _fill_events(self) -> None:
        async with self._jetstream() as jetstream:
            config = await self._config(jetstream)
            await _until_done(jetstream, f"STREAM.UPDATE.{self._events}", {**config, **FULL})
            await asyncio.sleep(self._chance.uniform(0.5, 4))
            await _until_done(jetstream, f"STREAM.UPDATE.{self._events}", config)

    async def _delete_events(self) -> None:
        async with self._jetstream() as jetstream:
            config = await self._config(jetstream)
            await _until_done(jetstream, f"STREAM.DELETE.{self._events}", None)
            await asyncio.sleep(self._chance.uniform(0.2, 3))
            await _until_done(jetstream, f"STREAM.CREATE.{self._events}", config)

    async def _kill_node(self) -> None:
        cluster = self._fleet.cluster
        node = await self._some_node()
        await cluster.kill(node)
        await asyncio.sleep(self._chance.uniform(0.2, 4))
        await cluster.start(node)

    async def _pause_node(self) -> None:
        cluster = self._fleet.cluster
        node = await self._some_node()
        cluster.pause(node)
        await asyncio.sleep(self._chance.uniform(1, 8))
        cluster.resume(node)

    async def _some_node(self) -> int:
        """Mostly one that leads."""
        cluster = self._fleet.cluster
        if self._chance.random() < 0.3:
            return self._chance.randrange(len(cluster.nodes))
        subjects = Subjects(self._fleet.plan.namespace)
        stream = self._chance.choice((subjects.turns_stream, subjects.events_stream))
        return await cluster.leader(stream)

    async def _restart_postgres(self) -> Fault | None:
        if self._postgres is None or self._database.locked():
            return None
        async with self._database:
            at = now()
            await self._postgres.stop(self._chance.choice(("fast", "immediate")))
            await asyncio.sleep(self._chance.uniform(0.05, 1.5))
            await self._postgres.start()
            return Fault(t=at, name="postgres_restart", until=now(), target="postgres")

    async def _config(self, jetstream: JetStream) -> dict[str, Any]:
        info = await _until_done(jetstream, f"STREAM.INFO.{self._events}", None)
        return msgspec.json.decode(info)["config"]

    @contextlib.asynccontextmanager
    async def _jetstream(self) -> AsyncIterator[JetStream]:
        async with (
            connected(self._fleet.urls, name="operator", on_reconnect=lambda: None) as connection,
            JetStream(connection) as jetstream,
        ):
            yield jetstream


async def _until_done(jetstream: JetStream, request: str, body: dict[str, Any] | None) -> bytes:
    """What an operator does is done, whatever else the broker suffers."""
    while True:
        try:
            return await (jetstream.api(request) if body is None else jetstream.api(request, body))
        except (BrokerUnavailable, BrokerRefused):
            await asyncio.sleep(0.2)
