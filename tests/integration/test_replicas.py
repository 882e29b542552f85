"""Three brokers, every stream on all of them. One is killed or paused: callers notice nothing but time."""

import asyncio
import secrets
from pathlib import Path

import pytest

from atto import Agent, ScriptedModel, ToolContext, events, tool
from atto.broker.connection import connected
from atto.broker.jetstream import JetStream
from atto.models import FinishChunk, TextChunk, call
from atto.protocol.events import is_terminal
from atto.stores import NatsKvStore
from atto_client import Client
from atto_workers import Runtime, Topology, Worker
from atto_workers.topology import stream_info
from tests.integration.child import dying
from tests.integration.histories import check_history
from tests.integration.processes import child
from tests.replicated import Replicated

SESSIONS = [f"s-{number}" for number in range(12)]
TURNS = 25
PATIENCE = 60


@pytest.fixture
async def brokers(tmp_path):
    async with Replicated(tmp_path) as brokers:
        yield brokers


@pytest.fixture
def namespace():
    return f"r-{secrets.token_hex(8)}"


def agent():
    @tool
    def note(context: ToolContext) -> str:
        """Counts in the session's state."""
        context.state["notes"] = context.state.get("notes", 0) + 1
        return "noted"

    def model(request):
        if request.messages[-1].role == "user":
            return call("note")
        turns = sum(message.role == "user" for message in request.messages)
        asked = [message.text for message in request.messages if message.role == "user"][-1]
        return [TextChunk(f"answer {turns} "), TextChunk("to "), TextChunk(asked), FinishChunk("stop")]

    return Agent("replicated", ScriptedModel.of(model), tools=[note])


def topology(namespace):
    return Topology(namespace, partitions=8, replicas=3)


async def hold_conversations(client, started):
    """All turns of all sessions, one after another in each; what each caller saw."""

    async def hold(session):
        seen = []
        for turn in range(1, TURNS + 1):
            seen.append([event async for event in client.run(session, f"turn {turn}")])
            if turn == 3:
                started.set()
        return seen

    return dict(zip(SESSIONS, await asyncio.gather(*map(hold, SESSIONS)), strict=True))


def check(conversations, snapshots):
    for session, runs in conversations.items():
        for turn, seen in enumerate(runs, 1):
            assert [event for event in seen if is_terminal(event)] == seen[-1:], (session, turn)
            assert isinstance(seen[-1], events.RunCompleted), (session, turn, seen[-1])
            assert (seen[-1].version, seen[-1].text) == (turn, f"answer {turn} to turn {turn}")
            assert standing_text(seen) == seen[-1].text, (session, turn)
        assert snapshots[session].version == TURNS
        assert snapshots[session].state == {"notes": TURNS}
        check_history(snapshots[session].messages)


def standing_text(seen):
    """The deltas of the last step that were not voided, joined."""
    steps = {}
    for event in seen:
        match event:
            case events.TextDelta():
                steps.setdefault(event.step, []).append(event.text)
            case events.StepRestarted():
                steps = {step: text for step, text in steps.items() if step < event.step}
    return "".join(steps[max(steps)])


async def kill(brokers, number):
    await brokers.kill(number)
    await asyncio.sleep(2.0)
    await brokers.start(number)


async def pause(brokers, number):
    brokers.pause(number)
    await asyncio.sleep(5.0)
    brokers.resume(number)


@pytest.mark.parametrize(
    ("fault", "stream"),
    [
        (kill, "{}-TURNS"),
        (kill, "{}-EVENTS"),
        (kill, "KV_{}-sessions"),
        (pause, "{}-TURNS"),
        (pause, "KV_{}-members"),
    ],
)
async def test_the_leader_of_a_stream_is_lost_under_load(brokers, namespace, fault, stream):
    name = stream.format(namespace)
    started = asyncio.Event()
    async with (
        asyncio.timeout(PATIENCE),
        Worker(agent(), nats=brokers.urls, topology=topology(namespace), grace=5.0),
        Worker(agent(), nats=brokers.urls, topology=topology(namespace), grace=5.0),
        Client(brokers.urls, namespace=namespace) as client,
    ):
        talking = asyncio.create_task(hold_conversations(client, started))
        await started.wait()
        await fault(brokers, await brokers.leader(name))
        conversations = await talking
        snapshots = {session: await client.snapshot(session) for session in SESSIONS}
    check(conversations, snapshots)


async def test_a_runtime_rides_through_the_loss_of_each_node_in_turn(brokers, namespace):
    started = asyncio.Event()
    async with (
        asyncio.timeout(PATIENCE),
        Runtime(agent(), nats=brokers.urls, topology=topology(namespace)) as runtime,
    ):
        talking = asyncio.create_task(hold_conversations(runtime, started))
        await started.wait()
        for number in range(len(brokers.nodes)):
            await kill(brokers, number)
        conversations = await talking
        snapshots = {session: await runtime.snapshot(session) for session in SESSIONS}
    check(conversations, snapshots)


async def test_a_worker_that_dies_in_a_cluster_is_gone_on_for(brokers, namespace, tmp_path: Path):
    """Its journal is read from replicas that may be behind their leader."""
    async with (
        asyncio.timeout(PATIENCE),
        Client(brokers.urls, namespace=namespace) as client,
        Worker(agent(), nats=brokers.urls, topology=topology(namespace), grace=0.0) as first,
    ):
        started = asyncio.Event()
        talking = asyncio.create_task(hold_conversations(client, started))
        await started.wait()
        for _ in range(4):
            async with Worker(agent(), nats=brokers.urls, topology=topology(namespace), grace=0.0):
                await asyncio.sleep(0.5)
        conversations = await talking
        snapshots = {session: await client.snapshot(session) for session in SESSIONS}
        assert first.partitions
    check(conversations, snapshots)


async def test_a_namespace_of_one_copy_gets_three_its_sessions_included(brokers, namespace):
    async with (
        asyncio.timeout(PATIENCE),
        connected(brokers.urls, name="admin", on_reconnect=lambda: None) as connection,
        JetStream(connection) as jetstream,
    ):
        await Topology(namespace, partitions=8).declare(jetstream)
        await NatsKvStore(jetstream, namespace).declare()
        names = [f"{namespace}-{name}" for name in ("TURNS", "EVENTS", "CANCELS", "DEAD")]
        names += [f"KV_{namespace}-{name}" for name in ("members", "sessions")]
        assert await copies(jetstream, names) == dict.fromkeys(names, 1)
        await Topology(namespace, replicas=3).declare(jetstream)
        assert await copies(jetstream, names) == dict.fromkeys(names, 3)


async def copies(jetstream, names):
    infos = {name: await stream_info(jetstream, name) for name in names}
    return {name: info.config["num_replicas"] for name, info in infos.items()}


async def test_a_worker_that_dies_in_an_asked_agents_tool_repeats_its_effect_under_the_same_key(
    brokers, namespace, tmp_path
):
    """All calls that led to it are acknowledged by then, also those that nobody waited for at first."""
    effects = tmp_path / "effects"
    async with asyncio.timeout(PATIENCE), Client(brokers.urls, namespace=namespace) as client:
        async with Worker(agent(), nats=brokers.urls, topology=topology(namespace)):
            pass  # the namespace is declared
        async with child("dying", ",".join(brokers.urls), namespace, effects) as first:
            await first.said("pid")
            run = await client.submit("s", "go", metadata={"dies_in": "note"})
            await first.process.wait()
        successor = dying(effects, stalls=False)
        async with Worker(successor, nats=brokers.urls, topology=topology(namespace)):
            assert (await run.result()).text == "done"
    keys = effects.read_text().splitlines()
    assert len(keys) == 2
    assert len(set(keys)) == 1
    assert f"noting-of-{first.pid}" in keys[0]
