"""What chaos found once, told without chance."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest

from atto import Agent, events
from atto.broker.server import EmbeddedBroker
from atto.models import ScriptedModel
from atto.protocol.messages import Message
from atto.protocol.sessions import Commit, Snapshot
from atto.stores import MemoryStore
from atto_client import Client
from atto_workers import Topology, Worker
from tests.integration.proxy import Proxy

EXPIRED = datetime.now(UTC) - timedelta(seconds=1)


@pytest.mark.parametrize("expires", [None, EXPIRED])
async def test_a_run_that_a_dead_worker_committed_is_completed_whatever_stops_it_later(
    broker, namespace, expires
):
    """The worker died between the commit and the terminal event; then it was cancelled, or too late."""
    store, topology = MemoryStore(), Topology(namespace, partitions=4)
    agent = Agent("tester", ScriptedModel.of("never asked"))
    async with Client(broker.url, namespace=namespace) as client:
        async with Worker(agent, nats=broker.url, store=store, topology=topology):
            pass  # the namespace is declared
        run = await client.submit("s", "hi", expires=expires)
        messages = (Message.user("hi"), Message.assistant("committed"))
        await store.save(Snapshot(session="s"), Commit(run_id=run.run_id, messages=messages))
        if expires is None:
            await run.cancel("enough")
        async with Worker(agent, nats=broker.url, store=store, topology=topology):
            seen = [event async for event in run]
    assert isinstance(seen[-1], events.RunCompleted)
    assert (seen[-1].text, seen[-1].version) == ("committed", 1)
    assert agent.model.requests == []


async def test_a_worker_that_finds_a_restarted_broker_later_than_others_is_not_taken_for_dead(
    tmp_path, caplog
):
    """Nobody listens on its subject then, which at any other time is proof of its death."""
    caplog.set_level("INFO", logger="atto.worker")
    agent, topology = Agent("tester", ScriptedModel.of("hi")), Topology("restart", partitions=8)
    async with asyncio.timeout(30), contextlib.AsyncExitStack() as brokers:
        broker = await brokers.enter_async_context(EmbeddedBroker(tmp_path))
        async with (
            Proxy(broker.url) as proxy,
            Worker(agent, nats=broker.url, topology=topology),
            Worker(agent, nats=proxy.url, topology=topology) as late,
        ):
            while len(late.partitions) < 3:  # of nine, one of which is not counted
                await asyncio.sleep(0.01)
            owned = late.partitions
            await broker.kill()
            proxy.stall()
            port = int(broker.url.rpartition(":")[2])
            await brokers.enter_async_context(EmbeddedBroker(tmp_path, port=port))
            await asyncio.sleep(0.8)
            proxy.flow()
            await asyncio.sleep(1.5)
            assert late.partitions == owned
    assert "over from" not in caplog.text
    assert "lost partition" not in caplog.text
