"""Dead letters: listed, shown, put back as new runs, dropped."""

import asyncio
import json

import pytest

from atto import ScriptedModel, events
from atto.protocol.errors import BrokerRefused, DeadLetterUnusable
from atto.protocol.subjects import Subjects
from atto_client import RunFailed, SessionBacklogFull
from atto_workers import DeadLetters, Topology


async def test_a_dead_letter_is_put_back_as_a_run_of_its_own(worker, client, broker, namespace, jetstream):
    async with worker(lambda _: "fine"), DeadLetters.of(broker.url, namespace=namespace) as letters:
        await jetstream.publish(f"{namespace}.turn.ann", b'{"input": "hi", "v": 3, "run_id": "r1"}')
        await jetstream.publish(f"{namespace}.turn.bob", b"not JSON")
        with pytest.raises(RunFailed, match="version 3"):
            await client.attach("ann", "r1").result()
        await client.run("bob", "hi").result()
        first, second = [letter async for letter in letters.list()]
        assert [letter async for letter in letters.list("bob")] == [second]
        assert (first.code, first.token, first.run_id) == ("unsupported_version", "ann", "r1")
        assert first.body == b'{"input": "hi", "v": 3, "run_id": "r1"}'
        assert await letters.show(first.number) == first

        run_id = await letters.requeue(first.number)
        with pytest.raises(RunFailed, match="version 3"):
            await client.attach("ann", run_id).result()
        again = [letter async for letter in letters.list("ann")]
        assert [letter.run_id for letter in again] == [run_id]

        with pytest.raises(DeadLetterUnusable, match="no JSON object"):
            await letters.requeue(second.number)
        await letters.drop(second.number)
        await letters.drop(second.number)
        assert await letters.show(second.number) is None
        with pytest.raises(DeadLetterUnusable, match="no dead letter"):
            await letters.requeue(second.number)


async def test_a_letter_that_belongs_to_no_session_stays(worker, broker, namespace, jetstream, client):
    async with worker(lambda _: "fine"), DeadLetters.of(broker.url, namespace=namespace) as letters:
        await jetstream.publish(f"{namespace}.turn.*", b'{"input": "hi"}')
        found: list = []
        while not found:
            found = [letter async for letter in letters.list()]
        with pytest.raises(DeadLetterUnusable, match="no session"):
            await letters.requeue(found[0].number)
        assert await letters.show(found[0].number) == found[0]


async def test_a_full_session_keeps_the_letter(client, broker, namespace, jetstream, worker):
    async with worker(lambda _: "fine", topology=Topology(namespace, partitions=1, backlog=1)):
        await jetstream.publish(f"{namespace}.turn.s", b'{"input": "", "run_id": "r"}')
        with pytest.raises(RunFailed):
            await client.attach("s", "r").result()
    await client.submit("s", "waits for a worker")
    async with DeadLetters.of(broker.url, namespace=namespace) as letters:
        [letter] = [letter async for letter in letters.list()]
        with pytest.raises(BrokerRefused, match="per subject"):
            await letters.requeue(letter.number)
        assert await letters.show(letter.number) == letter
    with pytest.raises(SessionBacklogFull):
        await client.submit("s", "x")


async def test_a_letter_that_is_put_back_twice_is_one_run(worker, client, jetstream, namespace):
    """A crash between the two steps, or two operators."""
    subjects = Subjects(namespace)
    letters = DeadLetters(jetstream, subjects)
    await Topology(namespace, partitions=4).declare(jetstream)
    why = {
        "Atto-Code": "attempts_exhausted",
        "Atto-Time": "2026-01-01T00:00:00Z",
        "Atto-Subject": subjects.turn("s"),
    }
    letter = (await jetstream.publish(subjects.dead("s"), b'{"input":"x"}', headers=why)).sequence
    dropping = letters.drop
    letters.drop = lambda _: asyncio.sleep(0)  # the crash
    first = await letters.requeue(letter)
    letters.drop = dropping
    assert await letters.requeue(letter) == first
    assert await letters.show(letter) is None
    model = ScriptedModel.of(lambda _: "fine")
    async with asyncio.timeout(60), worker(model):
        while json.loads(await jetstream.api(f"STREAM.INFO.{subjects.turns_stream}"))["state"]["messages"]:
            await asyncio.sleep(0.02)
        seen = [event async for event in client.attach("s", first)]
    assert len(model.requests) == 1
    assert sum(map(events.is_terminal, seen)) == 1
