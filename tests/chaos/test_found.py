"""What chaos found once, told without chance."""

from datetime import UTC, datetime, timedelta

import pytest

from atto import Agent, events
from atto.models import ScriptedModel
from atto.protocol.messages import Message
from atto.protocol.sessions import Commit, Snapshot
from atto.stores import MemoryStore
from atto_client import Client
from atto_workers import Topology, Worker

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
