"""Dead letters: listed, shown, put back as new runs, dropped."""

import asyncio
import json

import pytest

from atto import Agent, ScriptedModel, events
from atto.broker.connection import connected
from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.protocol.errors import BrokerRefused, DeadLetterUnusable
from atto.protocol.subjects import Subjects
from atto_client import Client, RunFailed, SessionBacklogFull
from atto_workers import DeadLetters, Topology, Worker


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


@pytest.mark.parametrize("max_payload", [16 << 10, 64 << 10])
async def test_a_letter_that_does_not_fit_beside_its_headers_is_cut_and_says_so(max_payload: int):
    """And it holds nobody up: the session goes on."""
    bodies = [
        b"x" * max_payload,
        b'{"run_id": "r", "input": 1, "' + b"y" * (max_payload - 100) + b'": 1}',
        b'{"' + "\U0001f600".encode() * (max_payload // 4 - 8) + b'": 1}',
    ]
    topology = Topology(partitions=2)
    async with (
        asyncio.timeout(60),
        EmbeddedBroker(config=f"max_payload: {max_payload}") as small,
        Worker(Agent("a", ScriptedModel.of("fine")), nats=small.url, topology=topology, grace=5.0),
        Client(small.url) as client,
        DeadLetters.of(small.url) as letters,
        connected(small.url, on_reconnect=lambda: None, name="raw") as connection,
        JetStream(connection) as jetstream,
    ):
        for body in bodies:
            await jetstream.publish("atto.turn.ann", body)
        assert (await client.run("ann", "hi").result()).text == "fine"
        filed = [letter async for letter in letters.list()]
        assert [letter.cut_from for letter in filed] == [len(body) for body in bodies]
        for letter, body in zip(filed, bodies, strict=True):
            assert body.startswith(letter.body)
            assert len(letter.body) > max_payload // 4
            assert (letter.code, letter.token) == ("invalid_turn", "ann")
            with pytest.raises(DeadLetterUnusable, match="only a part of its turn"):
                await letters.requeue(letter.number)
            assert await letters.show(letter.number) == letter
            await letters.drop(letter.number)
        assert [letter async for letter in letters.list()] == []


async def test_a_stream_that_takes_no_letter_at_all_holds_up_nobody(
    worker, client, jetstream, namespace, caplog
):
    """Its operator bounded what it takes of one message, below what the headers alone need."""
    stream = Subjects(namespace).dead_stream
    async with asyncio.timeout(60), worker(lambda _: "fine"):
        config = json.loads(await jetstream.api(f"STREAM.INFO.{stream}"))["config"]
        await jetstream.api(f"STREAM.UPDATE.{stream}", {**config, "max_msg_size": 10})
        await jetstream.publish(f"{namespace}.turn.ann", b'{"run_id": "r", "v": 99}')
        with pytest.raises(RunFailed, match="version 99"):
            await client.attach("ann", "r").result()
        assert (await client.run("ann", "hi").result()).text == "fine"
        assert "no dead letter of run r" in caplog.text


async def test_a_letter_of_an_over_long_token_is_listed_refused_and_dropped(
    worker, client, broker, namespace, jetstream
):
    async with asyncio.timeout(60), worker(lambda _: "fine"):
        tokens = ["a" * 3000, "a" * 2999 + "=", "=" * 3000]
        async with DeadLetters.of(broker.url, namespace=namespace) as letters:
            for token in tokens:
                await jetstream.publish(f"{namespace}.turn.{token}", b'{"input": "hi"}')
            found: list = []
            while len(found) < len(tokens):
                found = [letter async for letter in letters.list()]
                await asyncio.sleep(0.02)
            assert {letter.token for letter in found} == set(tokens)
            for letter in found:
                with pytest.raises(DeadLetterUnusable, match="belongs to no session"):
                    await letters.requeue(letter.number)
                await letters.drop(letter.number)
            assert [letter async for letter in letters.list()] == []
        assert (await client.run("ann", "hi").result()).text == "fine"
