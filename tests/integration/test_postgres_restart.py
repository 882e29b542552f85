"""Postgres crashes and comes back in the middle of turns."""

import asyncio

import pytest

from atto import events
from atto.models import FinishChunk, ScriptedModel, Stall, TextChunk
from atto.protocol.errors import StoreUnavailable
from atto.protocol.events import is_terminal
from atto.stores.postgres import PostgresStore
from tests.integration.histories import check_history
from tests.postgres import Postgres

SESSIONS = [f"s-{number}" for number in range(6)]
TURNS = [f"turn {number}" for number in range(5)]
CRASHES = 4


class Watched(PostgresStore):
    """Tells when a call has found the database gone."""

    def __init__(self, dsn):
        super().__init__(dsn, timeout=5.0)
        self.missed = asyncio.Event()

    async def save(self, base, commit):
        try:
            return await super().save(base, commit)
        except StoreUnavailable:
            self.missed.set()
            raise


@pytest.fixture
async def postgres():
    async with Postgres() as postgres:
        yield postgres


@pytest.fixture
async def store(postgres):
    async with Watched(postgres.dsn) as store:
        yield store


async def submit_all(client):
    """All turns of all sessions, each with somebody who collects its terminal events."""

    async def terminals(run):
        return [event async for event in run if is_terminal(event)]

    runs = [await client.submit(session, turn) for turn in TURNS for session in SESSIONS]
    return [asyncio.create_task(terminals(run)) for run in runs]


async def check(listeners, client, store):
    """Every accepted turn has ended exactly once, and is committed exactly once, in order."""
    for terminals in await asyncio.gather(*listeners):
        assert [type(event) for event in terminals] == [events.RunCompleted]
    for session in SESSIONS:
        snapshot = await store.load(session)
        assert [message.text for message in snapshot.messages if message.role == "user"] == TURNS
        assert snapshot.version == len({record.run_id for record in snapshot.runs}) == len(TURNS)
        check_history(snapshot.messages)
        assert (await client.snapshot(session)).messages == snapshot.messages


async def test_turns_that_end_while_postgres_is_down_are_committed_when_it_is_back(
    worker, client, postgres, store
):
    gate, called = asyncio.Event(), asyncio.Semaphore(0)

    def answer(_request):
        called.release()
        return [TextChunk("an answer"), Stall(gate), FinishChunk("stop")]

    async with worker(ScriptedModel.of(answer), store=store):
        listeners = await submit_all(client)
        for _ in SESSIONS:
            await called.acquire()
        await postgres.stop("immediate")
        gate.set()
        await store.missed.wait()
        await postgres.start()
        await check(listeners, client, store)


async def test_postgres_crashes_again_and_again_in_the_middle_of_turns(worker, client, postgres, store):
    called = asyncio.Semaphore(0)

    def answer(_request):
        called.release()
        return "an answer"

    async with worker(ScriptedModel.of(answer), store=store):
        listeners = await submit_all(client)
        for _ in range(CRASHES):
            for _ in range(len(SESSIONS) - 1):  # turns that are not run again, so they do come
                await called.acquire()
            await postgres.stop("immediate")
            await postgres.start()
        await check(listeners, client, store)
