"""Declaring a namespace: idempotent, by many at once, and never against what is there."""

import asyncio
import json
from pathlib import Path

import nats
import pytest

from atto.broker.binary import find_server
from atto.broker.connection import connected
from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.protocol.errors import BrokerRefused, BrokerUnavailable, TopologyMismatch
from atto_client import Client, Overloaded
from atto_workers import Topology
from atto_workers.run.keeping import Kept
from atto_workers.topology import EVENTS_MAX_BYTES, Declared, stream_info


async def test_it_may_be_declared_again_and_by_many_at_once(jetstream: JetStream, namespace: str):
    declared = await asyncio.gather(*(Topology(namespace).declare(jetstream) for _ in range(8)))
    kept = Kept(deltas=600, records=24 * 3600, openings=7 * 24 * 3600)
    expected = Declared(partitions=64, backlog=32, replicas=1, events_max_age=24 * 3600.0, events_kept=kept)
    assert declared == [expected] * 8


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
    assert Kept.of(events.config) == Kept(deltas=60, records=60, openings=7 * 24 * 3600)
    assert events.config["max_age"] > 7 * 24 * 3600 * 1_000_000_000
    assert (await Topology(namespace, deltas_max_age=5).declare(jetstream)).events_kept == (5, 60, 604_800)
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


async def test_streams_of_an_older_version_get_their_bounds_from_the_admin_only(
    jetstream: JetStream, namespace: str
):
    await Topology(namespace).declare(jetstream)
    stream = f"{namespace}-CANCELS"

    async def config(name: str) -> dict:
        info = await stream_info(jetstream, name)
        assert info is not None
        return info.config

    new = {name: await config(f"{namespace}-{name}") for name in ("TURNS", "CANCELS", "DEAD")}
    for name, made in new.items():
        metadata = {key: value for key, value in made["metadata"].items() if key == "atto-partitions"}
        old = {**made, "max_bytes": -1, "max_msg_size": -1, "metadata": metadata}
        old["max_age"] = 86_400_000_000_000 if name == "CANCELS" else 0
        if name == "CANCELS":
            old["discard"] = "old"
        await jetstream.api(f"STREAM.UPDATE.{namespace}-{name}", old)
    await jetstream.publish(f"{namespace}.cancel.s.r", b"{}")
    await Topology(namespace).declare(jetstream)  # as a worker does, which may not update
    assert (await config(stream))["max_bytes"] == -1
    await Topology(namespace).declare(jetstream, renew=True)
    bounds = ("max_bytes", "max_age", "max_msg_size", "discard", "metadata")
    for name, made in new.items():
        renewed = await config(f"{namespace}-{name}")
        for bound in bounds:
            ours, theirs = renewed[bound], made[bound]
            if bound == "metadata":
                ours, theirs = ({k: v for k, v in each.items() if "atto" in k} for each in (ours, theirs))
            assert ours == theirs, (name, bound)
    assert await jetstream.last(stream, f"{namespace}.cancel.s.r") is not None


async def test_no_bound_at_all_stays_none(jetstream: JetStream, namespace: str):
    topology = Topology(namespace, turns_max_bytes=0, cancels_max_bytes=0, dead_max_bytes=0, dead_max_age=0)
    await topology.declare(jetstream)
    await Topology(namespace).declare(jetstream, renew=True)
    for name in ("TURNS", "CANCELS", "DEAD"):
        info = await stream_info(jetstream, f"{namespace}-{name}")
        assert info is not None
        assert info.config["max_bytes"] == -1
    assert info is not None
    assert info.config["max_age"] == 0


async def test_a_stream_of_events_of_an_older_version_gets_its_ages_from_the_admin_only(
    jetstream: JetStream, namespace: str
):
    stream = f"{namespace}-EVENTS"
    old = {
        "name": stream,
        "subjects": [f"{namespace}.event.*.*", f"{namespace}.fence.*.*"],
        "max_age": 3 * 3600 * 1_000_000_000,
        "allow_direct": True,
    }
    await jetstream.api(f"STREAM.CREATE.{stream}", old)
    await jetstream.publish(f"{namespace}.event.s.r", b"{}")
    declared = await Topology(namespace).declare(jetstream)  # as a worker does
    assert (declared.events_max_age, declared.events_kept) == (3 * 3600, None)
    declared = await Topology(namespace).declare(jetstream, renew=True)
    assert declared.events_kept == (600, 3 * 3600, 7 * 24 * 3600)
    info = await stream_info(jetstream, stream)
    assert info is not None
    assert (info.config["discard"], info.config["max_bytes"]) == ("new", EVENTS_MAX_BYTES)
    assert await jetstream.last(stream, f"{namespace}.event.s.r") is not None
    assert await Topology(namespace).declare(jetstream) == declared


async def test_a_bound_below_what_is_stored_drops_nothing(jetstream: JetStream, namespace: str):
    await Topology(namespace, turns_max_bytes=0).declare(jetstream)
    stream = f"{namespace}-TURNS"
    info = await stream_info(jetstream, stream)
    assert info is not None
    metadata = {"atto-partitions": "64"}
    await jetstream.api(f"STREAM.UPDATE.{stream}", {**info.config, "metadata": metadata})
    for number in range(20):
        await jetstream.publish(f"{namespace}.turn.s{number}", b"x" * 1_000)
    topology = Topology(namespace)
    wanted = {**topology._turns_config(), "max_bytes": 5_000}
    await topology._ensure(jetstream, wanted, {}, renew=True)
    state = json.loads(await jetstream.api(f"STREAM.INFO.{stream}"))["state"]
    assert state["messages"] == 20


async def test_a_namespace_that_is_full_of_bytes_refuses_with_words(
    broker: EmbeddedBroker, jetstream: JetStream, namespace: str
):
    await Topology(namespace, turns_max_bytes=5_000).declare(jetstream)
    accepted = 0
    async with Client(broker.url, namespace=namespace) as client:
        with pytest.raises(Overloaded, match="back off"):
            while True:
                await client.submit(f"s{accepted}", "x" * 1_000)
                accepted += 1
    assert accepted >= 2
    state = json.loads(await jetstream.api(f"STREAM.INFO.{namespace}-TURNS"))["state"]
    assert state["messages"] == accepted


NO_ROOM = [
    ("max_file_store: 50MB", "", "TURNS.*134,217,728 bytes.*10047.*--turns-max-bytes BYTES.*0 sets nothing"),
    ("max_file_store: 200MB", "", "EVENTS.*10047.*atto declare --events-max-bytes"),
    ("max_file_store: 450MB", "", "DEAD.*10047.*atto declare --dead-max-bytes"),
    ("", "max_file: 50MB", r"TURNS.*--turns-max-bytes.*Topology\(turns_max_bytes=…\)"),
    ("", "max_file: 1GB, disk_max_stream_bytes: 10MB", "10122.*--turns-max-bytes.*max_stream_bytes"),
    ("", "max_file: 1GB, max_bytes_required: true", "EVENTS.*10113.*max_bytes_required"),
    ("", "max_file: 1GB, max_streams: 2", "10027.*max_streams"),
]


@pytest.mark.parametrize(("server", "account", "said"), NO_ROOM)
async def test_a_broker_without_room_is_told_with_the_bound_to_lower(server: str, account: str, said: str):
    users = f"accounts {{ A {{ jetstream: {{ {account} }}, users: [{{ user: a, password: b }}] }} }}\n"
    async with EmbeddedBroker(config=f"jetstream {{ {server} }}\n{users if account else ''}") as broker:
        options = {"user": "a", "password": "b"} if account else {}
        async with (
            connected(broker.url, name="test", on_reconnect=lambda: None, **options) as connection,
            JetStream(connection) as jetstream,
        ):
            with pytest.raises(BrokerRefused, match=said):
                await Topology(events_max_bytes=0 if "required" in account else None).declare(jetstream)
            if "max_file_store" in server or account == "max_file: 50MB":
                small = Topology(
                    turns_max_bytes=10 << 20,
                    events_max_bytes=10 << 20,
                    cancels_max_bytes=1 << 20,
                    dead_max_bytes=10 << 20,
                )
                assert (await small.declare(jetstream)).partitions == 64


async def test_what_the_broker_sets_aside_fits_a_small_volume(jetstream: JetStream, namespace: str):
    await Topology(namespace).declare(jetstream)
    names = [f"{namespace}-{kind}" for kind in ("TURNS", "EVENTS", "CANCELS", "DEAD")]
    found = [await stream_info(jetstream, name) for name in (*names, f"KV_{namespace}-members")]
    bounds = [info.config["max_bytes"] for info in found if info is not None]
    assert len(bounds) == 5
    assert sum(bound for bound in bounds if bound > 0) <= 512 << 20
