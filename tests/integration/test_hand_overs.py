"""Partitions change hands while the broker is away."""

import asyncio

import pytest

from atto import Agent
from atto.models import FinishChunk, ScriptedModel, Stall, TextChunk
from atto_client import Client
from atto_workers import Topology, Worker
from tests.integration.test_broker_restart_kv import Restartable
from tests.integration.test_cluster import spread_over

PARTITIONS = 8
SESSIONS = [f"s-{number}" for number in range(20)]


@pytest.fixture
async def broker(tmp_path):
    async with Restartable(tmp_path) as broker:
        yield broker


async def test_a_partition_that_could_not_be_handed_over_while_the_broker_was_away_is_later(broker):
    stalled = asyncio.Semaphore(0)
    gate = asyncio.Event()

    def answer(_request):
        stalled.release()
        return [TextChunk("an "), Stall(gate), TextChunk("answer"), FinishChunk("stop")]

    agent, topology = Agent("tester", ScriptedModel.of(answer)), Topology(partitions=PARTITIONS)
    async with (
        asyncio.timeout(60),
        Client(broker.url) as client,
        Worker(agent, nats=broker.url, topology=topology, grace=1.0) as first,
    ):
        runs = [await client.submit(session, "hi") for session in SESSIONS]
        for _ in SESSIONS:
            await stalled.acquire()
        async with Worker(agent, nats=broker.url, topology=topology, grace=1.0) as second:
            while not first._steward._releases:
                await asyncio.sleep(0)
            await broker.kill()
            while first._steward._releases:
                await asyncio.sleep(0.01)
            gate.set()
            await broker.start()
            await spread_over([first, second], PARTITIONS)
            assert {(await run.result()).text for run in runs} == {"an answer"}
            await second.__aexit__(None, None, None)
            await first.__aexit__(None, None, None)
