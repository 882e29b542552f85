"""Declaring a namespace: idempotent, by many at once, and never against what is there."""

import asyncio
import json
from pathlib import Path

import nats
import pytest

from atto.broker.binary import find_server
from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.protocol.errors import BrokerUnavailable, TopologyMismatch
from atto_client import Client, Overloaded
from atto_workers import Topology
from atto_workers.topology import Declared, stream_info


async def test_it_may_be_declared_again_and_by_many_at_once(jetstream: JetStream, namespace: str):
    declared = await asyncio.gather(*(Topology(namespace).declare(jetstream) for _ in range(8)))
    assert declared == [Declared(partitions=64, backlog=32, replicas=1)] * 8


async def test_another_partition_count_is_refused_with_what_to_do(jetstream: JetStream, namespace: str):
    await Topology(namespace, partitions=8).declare(jetstream)
    with pytest.raises(TopologyMismatch, match="with 8 partitions, not 16: start with partitions=8"):
        await Topology(namespace, partitions=16).declare(jetstream)
    assert (await Topology(namespace).declare(jetstream)).partitions == 8


async def test_a_stream_of_somebody_else_is_not_touched(jetstream: JetStream, namespace: str):
    config = {"name": f"{namespace}-TURNS", "subjects": [f"{namespace}.other"]}
    await jetstream.api(f"STREAM.CREATE.{namespace}-TURNS", config)
    with pytest.raises(TopologyMismatch, match="not atto's"):
        await Topology(namespace).declare(jetstream)


async def test_what_is_given_is_enforced_and_the_rest_kept(jetstream: JetStream, namespace: str):
    await Topology(namespace, backlog=5, events_max_age=60).declare(jetstream)
    await Topology(namespace, max_turns=100).declare(jetstream)
    turns = await stream_info(jetstream, f"{namespace}-TURNS")
    events = await stream_info(jetstream, f"{namespace}-EVENTS")
    assert turns is not None
    assert events is not None
    assert (turns.config["max_msgs_per_subject"], turns.config["max_msgs"]) == (5, 100)
    assert turns.config["discard_new_per_subject"] is True
    assert events.config["max_age"] == 60_000_000_000
    await Topology(namespace, backlog=7).declare(jetstream)
    turns = await stream_info(jetstream, f"{namespace}-TURNS")
    assert turns is not None
    assert (turns.config["max_msgs_per_subject"], turns.config["max_msgs"]) == (7, 100)


@pytest.mark.parametrize("namespace", ["", "a.b", "with space", "x" * 33, "*", "ü"])
def test_a_namespace_is_one_short_token(namespace):
    with pytest.raises(ValueError, match="namespace"):
        Topology(namespace)


def test_a_bound_on_turns_is_not_below_none_at_all():
    with pytest.raises(ValueError, match="max_turns must be at least 0"):
        Topology(max_turns=-1)


@pytest.mark.parametrize("setting", ["partitions", "backlog", "replicas"])
def test_settings_are_positive(setting):
    with pytest.raises(ValueError, match=setting):
        Topology(**{setting: 0})


async def test_a_broker_without_jetstream_says_so(tmp_path: Path):
    ports = tmp_path / "ports"
    ports.mkdir()
    server = await asyncio.create_subprocess_exec(
        find_server(),
        *("-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", ports),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert server.stderr is not None
        while b"Server is ready" not in await server.stderr.readline():
            pass
        while not (
            found := [text for file in ports.glob("*.ports") if (text := file.read_text()).endswith("}")]
        ):
            await asyncio.sleep(0)  # not there yet, or half written
        connection = await nats.connect(json.loads(found[0])["nats"][0])
        async with JetStream(connection) as jetstream:
            with pytest.raises(BrokerUnavailable, match="JetStream turned off"):
                await Topology().declare(jetstream)
        await connection.close()
    finally:
        server.terminate()
        await server.communicate()


async def test_an_overfull_namespace_is_overloaded_and_not_this_session(
    broker: EmbeddedBroker, jetstream: JetStream, namespace: str
):
    await Topology(namespace, max_turns=2).declare(jetstream)
    async with Client(broker.url, namespace=namespace) as client:
        await client.submit("a", "1")
        await client.submit("b", "2")
        with pytest.raises(Overloaded, match="back off"):
            await client.submit("c", "3")
