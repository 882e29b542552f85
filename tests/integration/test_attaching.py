"""Streams resumed: from another client, after a number, across lost connections and a restarted broker."""

import asyncio
import json
from pathlib import Path

import pytest

from atto import events
from atto.broker.server import EmbeddedBroker
from atto.models import FinishChunk, ScriptedModel, Stall, TextChunk
from atto_client import BrokerUnavailable, Client, NoWorkers, TopologyMissing
from atto_client import listener as listeners
from atto_workers import Topology, Worker
from atto_workers.topology import stream_info
from tests.integration.proxy import Proxy


def in_halves(gate: asyncio.Event, reached: asyncio.Event, pieces: int = 20):
    half = [TextChunk(f"{number} ") for number in range(pieces)]
    return ScriptedModel.of(lambda _: [*half, Stall(gate, reached), *half, FinishChunk("stop")])


async def collected(run, seen: list, until: asyncio.Event | None = None):
    async for event in run:
        seen.append(event)
        if until is not None and isinstance(event, events.TextDelta):
            until.set()
    return seen


def whole(seen) -> bool:
    return (
        [event.seq for event in seen] == list(range(1, len(seen) + 1))
        and isinstance(seen[-1], events.RunCompleted)
        and "".join(event.text for event in seen if isinstance(event, events.TextDelta)) == seen[-1].text
    )


async def test_a_listener_that_comes_in_the_middle_hears_all_once(worker, client, broker, namespace):
    gate, reached = asyncio.Event(), asyncio.Event()
    async with worker(in_halves(gate, reached)):
        run = await client.submit("s", "go")
        await reached.wait()
        async with Client(broker.url, namespace=namespace) as other:
            seen: list = []
            heard = asyncio.Event()
            task = asyncio.create_task(collected(other.attach("s", run.run_id), seen, heard))
            await heard.wait()
            gate.set()
            await task
        assert whole(seen)
        again = [event async for event in client.attach("s", run.run_id)]
    assert again == seen


async def test_every_number_can_be_gone_on_from(worker, client):
    async with worker(lambda _: "a b c d e f"):
        run = await client.submit("s", "go")
        seen = [event async for event in run]
        for after in range(len(seen) + 1):
            rest = [event async for event in client.attach("s", run.run_id, after=f"1-{after}")]
            assert rest == seen[after:]
        for after in (len(seen) - 1, len(seen), len(seen) + 1):
            assert await client.attach("s", run.run_id, after=f"1-{after}").result() == seen[-1]


@pytest.mark.parametrize("whose", ["client", "worker"])
async def test_a_lost_connection_costs_no_event(broker, namespace, whose):
    gate, reached = asyncio.Event(), asyncio.Event()
    async with Proxy(broker.url) as proxy:
        urls = {"client": broker.url, "worker": broker.url, whose: proxy.url}
        topology = Topology(namespace, partitions=2)
        async with (
            Worker(_agent(in_halves(gate, reached)), nats=urls["worker"], topology=topology, grace=5),
            Client(urls["client"], namespace=namespace) as client,
        ):
            seen: list = []
            async with asyncio.timeout(30), client.run("s", "go") as run:
                async for event in run:
                    seen.append(event)
                    if isinstance(event, events.TextDelta) and not gate.is_set():
                        await reached.wait()
                        proxy.cut()
                        gate.set()
            assert whole(seen)
            assert (await client.run("s", "go").result()).version == 2


async def test_a_restarted_broker_costs_no_turn_and_no_event(tmp_path: Path):
    gate, reached = asyncio.Event(), asyncio.Event()
    first = EmbeddedBroker(tmp_path)
    async with first:
        url, port = first.url, int(first.url.rpartition(":")[2])
        worker = Worker(_agent(in_halves(gate, reached)), nats=url, topology=Topology(partitions=2), grace=5)
        async with asyncio.timeout(60), worker, Client(url) as client:
            run = await client.submit("s", "one")
            queued = await client.submit("s", "two")
            seen: list = []
            listening = asyncio.create_task(collected(run, seen))
            await reached.wait()
            await first.kill()
            async with EmbeddedBroker(tmp_path, port=port):
                gate.set()
                await listening
                assert whole(seen)
                assert (await queued.result()).version == 2
                assert (await client.run("s", "three").result()).version == 3
                assert (await client.snapshot("s")).version == 3
                await _all_streams_are_there(client)
                await worker.__aexit__(None, None, None)
                await client.__aexit__(None, None, None)


async def test_events_that_were_never_heard_live_are_read_from_the_stream(
    worker, client, monkeypatch, jetstream, namespace
):
    """The terminal event is published while the listener's subscription hears nothing."""
    monkeypatch.setattr(listeners, "SILENCE_PATIENCE", (0.05,))
    async with worker(lambda _: "fine"):
        deaf = client.attach("s", "run-1")
        seen: list = []
        monkeypatch.setattr(listeners.Listener, "_hear", _deaf)
        listening = asyncio.create_task(collected(deaf, seen))
        await client.submit("s", "hi", run_id="run-1")
        await listening
    assert whole(seen)


async def test_a_slow_consumer_gets_every_event_and_bounded_memory(worker, client, monkeypatch):
    monkeypatch.setattr(listeners, "LIVE_LIMIT", 2)
    gates = [asyncio.Event() for _ in range(20)]
    script = [item for gate in gates for item in (TextChunk("x "), Stall(gate))]
    async with worker(lambda _: [*script, FinishChunk("stop")]):
        seen: list = []
        async with client.run("s", "go") as run:
            async for event in run:
                seen.append(event)
                for gate in gates:
                    gate.set()
                    for _ in range(20):
                        await asyncio.sleep(0)
    assert whole(seen)


async def test_a_client_that_is_closed_ends_its_listeners(broker, namespace, worker):
    reached = asyncio.Event()
    async with worker(in_halves(asyncio.Event(), reached)):
        async with Client(broker.url, namespace=namespace) as client:
            run = await client.submit("s", "go")
            heard = asyncio.Event()
            listening = asyncio.create_task(collected(run, [], heard))
            await heard.wait()
        with pytest.raises(BrokerUnavailable, match="closed"):
            await listening
        async with Client(broker.url, namespace=namespace) as client:
            await client.cancel("s", run.run_id)
            assert isinstance((await collected(client.attach("s", run.run_id), []))[-1], events.RunCancelled)


async def test_a_client_that_is_closed_ends_a_loop_whose_run_was_left(broker, namespace, worker):
    reached = asyncio.Event()
    async with asyncio.timeout(30), worker(in_halves(asyncio.Event(), reached)):
        async with Client(broker.url, namespace=namespace) as client, client.run("s", "go") as run:
            heard = asyncio.Event()
            listening = asyncio.create_task(collected(run, [], heard))
            await heard.wait()
        with pytest.raises(BrokerUnavailable, match="closed"):
            await listening


async def test_what_is_missing_is_said(broker, namespace, worker):
    async with Client(broker.url, namespace=namespace, submit_patience=0.5) as client:
        with pytest.raises(TopologyMissing, match="start a worker"):
            await client.submit("s", "hi")
        with pytest.raises(TopologyMissing, match="start a worker"):
            await client.cancel("s", "r")
        with pytest.raises(NoWorkers, match="start one"):
            await client.snapshot("s")
    with pytest.raises(BrokerUnavailable, match="not open"):
        await client.submit("s", "hi")
    with pytest.raises(BrokerUnavailable, match="Is a nats-server running"):
        async with Client("nats://127.0.0.1:1", connect_timeout=0.3):
            pass


async def _all_streams_are_there(client):
    """A worker that outlived the broker's restart must still be able to tell who lives."""
    names = ["atto-TURNS", "atto-EVENTS", "atto-CANCELS", "atto-DEAD", "KV_atto-sessions", "KV_atto-members"]
    for name in names:
        assert await stream_info(client._jetstream, name) is not None, name


def _deaf(self, message):
    pass


def _agent(model):
    from atto import Agent

    return Agent("tester", model)


async def test_a_turn_that_was_lost_on_its_way_to_the_worker_is_not_overtaken(broker, namespace, jetstream):
    """The broker counts it as delivered; the worker never saw it, and the next one comes all the same."""

    async def consumers():
        return json.loads(await jetstream.api(f"CONSUMER.LIST.{namespace}-TURNS"))["consumers"]

    async def delivered() -> int:
        return sum(consumer["delivered"]["consumer_seq"] for consumer in await consumers())

    async def pulls_stand() -> None:
        while sum(consumer["num_waiting"] for consumer in await consumers()) < 2:
            await asyncio.sleep(0.01)

    async with Proxy(broker.url) as proxy, Client(broker.url, namespace=namespace) as client:
        worker = Worker(
            _agent(ScriptedModel.of(lambda request: f"answer to {request.messages[-1].text}")),
            nats=proxy.url,
            topology=Topology(namespace, partitions=1),
            grace=5,
        )
        async with asyncio.timeout(30), worker:
            await pulls_stand()
            proxy.stall()
            runs = [await client.submit("s", "one")]
            while await delivered() < 1:
                await asyncio.sleep(0.01)
            proxy.cut()
            proxy.flow()
            runs += [await client.submit("s", text) for text in ("two", "three")]
            assert [(await run.result()).version for run in runs] == [1, 2, 3]
            quiet = await client.submit("s", "four")
            assert (await quiet.result()).version == 4
            # And when nothing comes after the lost one, the broker's heartbeat tells of it.
            await pulls_stand()
            before = await delivered()
            proxy.stall()
            lost = await client.submit("s", "five")
            while await delivered() == before:
                await asyncio.sleep(0.01)
            proxy.cut()
            proxy.flow()
            assert (await lost.result()).version == 5
