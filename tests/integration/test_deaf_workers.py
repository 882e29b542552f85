"""A worker that speaks to the broker and hears nothing: others take over, and it comes back."""

import asyncio
from collections.abc import Callable

import pytest

from atto import Agent, ScriptedModel, events
from atto.models import Stall
from atto_client import Client
from atto_workers import Topology, Worker, presence
from atto_workers.run.journal import SILENT
from tests.integration.proxy import HushingProxy, Proxy

BOUND = 20.0
"""Seconds in which others go on, on a busy machine; 4 to 6 on a quiet one."""


def answering(name: str, stall: Stall | None = None) -> Agent:
    """Answers its name; if it is to stall, it does so on `stall`, for good."""

    def model(request):
        return [stall] if stall and request.messages[-1].text == "stall" else name

    return Agent(name, ScriptedModel.of(model))


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.05)


async def goes_on_elsewhere_and_comes_back(
    client: Client,
    deaf: Worker,
    stall: Stall,
    silence: Callable[[], None],
    end: Callable[[], None],
    other: Worker,
) -> None:
    assert stall.reached is not None
    run = await client.submit("ann", "stall")
    await stall.reached.wait()
    async with asyncio.timeout(60), other:
        await until(lambda: bool(other.partitions) and bool(deaf.partitions))
        silence()
        began = asyncio.get_running_loop().time()
        seen = [event async for event in run]
        last = seen[-1]
        assert isinstance(last, events.RunCompleted), last
        assert last.text == "other"
        assert asyncio.get_running_loop().time() - began < BOUND
        # Without one where the deaf worker has left its connection by then: nobody listens, as after a crash.
        assert {event.reason for event in seen if isinstance(event, events.RunInterrupted)} <= {SILENT}
        end()
        await until(lambda: bool(deaf.partitions) and bool(other.partitions))
        async with asyncio.timeout(30):
            while await deaf.unready() is not None:
                await asyncio.sleep(0.05)
        for session in map(str, range(20)):
            assert (await client.run(session, "hi").result()).text in {"deaf", "other"}


@pytest.mark.leaves_consumers
async def test_a_deaf_workers_turns_go_on_elsewhere_and_it_rejoins(broker, namespace, client):
    stall = Stall(reached=asyncio.Event())
    async with Proxy(broker.url) as proxy:
        topology = Topology(namespace, partitions=8)
        deaf = Worker(answering("deaf", stall), nats=proxy.url, topology=topology, grace=60.0)
        other = Worker(answering("other"), nats=broker.url, namespace=namespace, grace=1.0)
        async with asyncio.timeout(120), deaf:
            await goes_on_elsewhere_and_comes_back(client, deaf, stall, proxy.deafen, proxy.flow, other)


@pytest.mark.leaves_consumers
async def test_a_worker_whose_broker_answers_pings_only_leaves_that_connection(
    broker, namespace, client, caplog, monkeypatch
):
    monkeypatch.setattr(presence, "UNANSWERED", 8)  # the others are first, on a busy machine too
    stall = Stall(reached=asyncio.Event())
    async with HushingProxy(broker.url) as proxy:
        topology = Topology(namespace, partitions=8)
        deaf = Worker(answering("deaf", stall), nats=proxy.url, topology=topology, grace=60.0)
        other = Worker(answering("other"), nats=broker.url, namespace=namespace, grace=1.0)
        async with asyncio.timeout(120), deaf:
            await goes_on_elsewhere_and_comes_back(client, deaf, stall, proxy.hush, lambda: None, other)
    assert "connects anew" in caplog.text
