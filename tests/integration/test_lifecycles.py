"""Workers and runtimes that are made early, entered again, or used where they cannot work."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from atto import Agent, ScriptedModel
from atto.protocol.errors import AttoError, BrokerUnavailable, LifecycleError
from atto_client import Client
from atto_workers import Runtime, Topology, Worker

FORKED = Path(__file__).with_name("forked.py")


async def test_a_worker_made_before_a_fork_is_another_one_in_each_process(broker, jetstream, namespace):
    await Topology(namespace, partitions=16).declare(jetstream)  # turns may come before any worker
    process = await asyncio.create_subprocess_exec(
        sys.executable, FORKED, broker.url, namespace, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    assert process.returncode == 0
    used, served = map(json.loads, output.splitlines())
    assert used == {"error": "LifecycleError"}
    assert served["runs"] == served["keys"] >= 12


def test_one_worker_serves_two_event_loops_one_after_the_other(broker, namespace):
    worker = Worker(Agent("tester", ScriptedModel.of(lambda _: "hi")), nats=broker.url, namespace=namespace)
    ids, versions = set(), []

    async def once() -> None:
        async with asyncio.timeout(30), worker, Client(broker.url, namespace=namespace) as client:
            ids.add(worker.id)
            versions.append((await client.run("s", "go").result()).version)

    for _ in range(2):
        asyncio.run(once())
    assert versions == [1, 2]
    assert len(ids) == 2


async def test_a_worker_that_is_open_is_not_entered_again(worker):
    async with worker(lambda _: "hi") as running:
        with pytest.raises(LifecycleError, match="open already"):
            await running.__aenter__()
        assert running.partitions


async def test_a_connection_of_another_process_is_refused(connection, worker, monkeypatch):
    made = Worker(Agent("tester", ScriptedModel.of(lambda _: "hi")), nats=connection)
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(LifecycleError, match="connect after the fork"):
        await made.__aenter__()


async def test_a_runtime_that_did_not_open_is_not_open(broker, namespace):
    runtime = Runtime(
        Agent("tester", ScriptedModel.of(lambda _: "hi")), nats=broker.url, namespace=namespace, store="none:"
    )
    with pytest.raises(AttoError):
        await runtime.__aenter__()
    for use in (lambda: runtime.url, lambda: runtime.usage, lambda: runtime.client):
        with pytest.raises(BrokerUnavailable, match="async with"):
            use()
