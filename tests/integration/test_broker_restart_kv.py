"""The broker crashes and comes back, and with it the sessions in its KV bucket, in the middle of turns."""

import asyncio
import contextlib

import msgspec
import pytest

from atto import Agent, events
from atto.broker.server import EmbeddedBroker
from atto.models import FinishChunk, ScriptedModel, Stall, TextChunk
from atto.protocol.events import is_terminal
from atto.stores import open_store
from atto_client import Client
from atto_workers import Topology, Worker
from tests.integration.histories import check_history

SESSIONS = [f"s-{number}" for number in range(6)]
TURNS = [f"turn {number}" for number in range(5)]
CRASHES = 2


class Restartable:
    """A broker that keeps its data and its port through crashes."""

    def __init__(self, data_dir):
        self._data_dir = data_dir
        self._running = contextlib.AsyncExitStack()
        self._broker = None

    @property
    def url(self):
        return self._broker.url

    async def __aenter__(self):
        await self.start()
        return self

    async def __aexit__(self, *_):
        await self._running.aclose()

    async def start(self):
        port = None if self._broker is None else int(self.url.rpartition(":")[2])
        self._broker = await self._running.enter_async_context(EmbeddedBroker(self._data_dir, port=port))

    async def kill(self):
        await self._broker.kill()


class Stalling:
    """A model whose answers stop half-way until `let_go`; `calls` counts those that have come there."""

    def __init__(self):
        self.calls = asyncio.Semaphore(0)
        self._gate = asyncio.Event()
        self.model = ScriptedModel.of(self._answer)

    def let_go(self, *, for_good=False):
        """Those that wait; `for_good`: and those to come."""
        self._gate.set()
        if not for_good:
            self._gate = asyncio.Event()

    def _answer(self, _request):
        self.calls.release()
        return [TextChunk("an "), Stall(self._gate), TextChunk("answer"), FinishChunk("stop")]


@pytest.fixture
async def broker(tmp_path):
    async with Restartable(tmp_path) as broker:
        yield broker


async def heard(run):
    return [event async for event in run]


async def test_a_broker_that_crashes_in_the_middle_of_turns_costs_no_commit_and_doubles_none(broker):
    stalling = Stalling()
    agent, topology = Agent("tester", stalling.model), Topology(partitions=4)
    async with (
        asyncio.timeout(90),
        Client(broker.url) as client,
        Worker(agent, nats=broker.url, topology=topology, grace=5.0) as worker,
    ):
        runs = [await client.submit(session, turn) for turn in TURNS for session in SESSIONS]
        listeners = [asyncio.create_task(heard(run)) for run in runs]
        for _ in range(CRASHES):
            for _ in SESSIONS:
                await stalling.calls.acquire()
            await broker.kill()
            stalling.let_go()  # so that they are to be committed while there is no broker
            await broker.start()
        stalling.let_go(for_good=True)
        for seen in await asyncio.gather(*listeners):
            check_stream(seen)
        async with Client(broker.url) as other:
            for run in runs:
                check_stream(await heard(other.attach(run.session, run.run_id)))
        async with open_store("nats-kv", jetstream=client._jetstream) as store:
            for session in SESSIONS:
                await check_session(store, client, session)
        # Before the broker goes.
        await worker.__aexit__(None, None, None)


def check_stream(seen):
    """Numbered without a gap, with the whole answer, and one end."""
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert [type(event) for event in seen if is_terminal(event)] == [events.RunCompleted]
    assert seen[-1].text == "an answer"


async def check_session(store, client, session):
    """Each turn is committed once, in the order of acceptance, and that made one version."""
    snapshot = await store.load(session)
    assert [message.text for message in snapshot.messages if message.role == "user"] == TURNS
    assert snapshot.version == len({record.run_id for record in snapshot.runs}) == len(TURNS)
    assert [record.version for record in snapshot.runs] == list(range(1, len(TURNS) + 1))
    check_history(snapshot.messages)
    assert (await client.snapshot(session)).messages == snapshot.messages


async def test_what_runs_while_the_broker_restarts_goes_on_and_is_done_once(broker):
    stalling = Stalling()
    agent, topology = Agent("tester", stalling.model), Topology(partitions=4)
    async with (
        asyncio.timeout(60),
        Client(broker.url) as client,
        Worker(agent, nats=broker.url, topology=topology, grace=5.0) as worker,
    ):
        runs = [await client.submit(session, "hi") for session in SESSIONS]
        queued = [await client.submit(session, "and then?") for session in SESSIONS]
        listeners = [asyncio.create_task(heard(run)) for run in (*runs, *queued)]
        for _ in SESSIONS:
            await stalling.calls.acquire()
        await broker.kill()
        await broker.start()
        later = await client.submit("another", "is delivered by the broker that came back")
        await stalling.calls.acquire()
        stalling.let_go(for_good=True)
        for seen in (*await asyncio.gather(*listeners), await heard(later)):
            check_stream(seen)
        assert len(stalling.model.requests) == 2 * len(SESSIONS) + 1
        await acknowledged(client._jetstream)
        await worker.__aexit__(None, None, None)


async def acknowledged(jetstream):
    """Returns once no turn is left."""
    while msgspec.json.decode(await jetstream.api("STREAM.INFO.atto-TURNS"))["state"]["messages"]:
        await asyncio.sleep(0.01)
