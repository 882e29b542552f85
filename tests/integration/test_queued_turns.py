"""An operator sees what is queued, whatever it is, and removes one turn; its callers are told."""

import asyncio

import pytest

from atto.protocol.errors import NoSuchTurn
from atto.protocol.subjects import Subjects
from atto_client import Client, RunCancelled
from atto_workers import Topology
from atto_workers.queued_turns import QueuedTurns
from tests.raw import raw_client


async def test_a_queued_turn_is_seen_and_removed_and_its_caller_is_told(broker, namespace, jetstream):
    await Topology(namespace).declare(jetstream)
    turns = QueuedTurns(jetstream, Subjects(namespace))
    async with Client(broker.url, namespace=namespace) as client, asyncio.timeout(30):
        run = await client.submit("ann", "first line\nsecond", run_id="r1")
        kept = await client.submit("bob", "x" * 500)
        first, second = [turn async for turn in turns.list()]
        assert (first.session, first.run_id, first.text) == ("ann", "r1", "first line")
        assert (second.run_id, len(second.text)) == (kept.run_id, 80)
        assert [turn async for turn in turns.list("bob")] == [second]
        waiting = asyncio.create_task(run.result())
        assert await turns.remove(first.number) == first
        with pytest.raises(RunCancelled, match="removed by an operator"):
            await waiting
        assert [turn async for turn in turns.list()] == [second]
        with pytest.raises(NoSuchTurn):
            await turns.remove(first.number)


async def test_unreadable_turns_are_seen_and_removed(broker, namespace, jetstream):
    await Topology(namespace).declare(jetstream)
    turns = QueuedTurns(jetstream, Subjects(namespace))
    async with raw_client(broker.url) as raw:
        for token in (b"\xff\xfe", b"a\x0bb", b"*", b"=" * 2000, b"ann"):
            raw.publish(
                namespace.encode() + b".turn." + token, b"\xff\x1b[2J", headers=b"NATS/1.0 404\r\n\r\n"
            )
        assert await raw.flush() == []
    seen = [turn async for turn in turns.list()]
    assert len(seen) == 5
    assert all(turn.text.startswith("unreadable: ") for turn in seen)
    assert [turn.session for turn in seen] == [None] * 4 + ["ann"]
    for turn in seen:
        await turns.remove(turn.number)
    assert [turn async for turn in turns.list()] == []
