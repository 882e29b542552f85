"""Each producer of examples/producers prints the same as the Python client sees, whatever its language."""

import asyncio
import re
from typing import Any

import msgspec
import pytest

from atto import Agent, ScriptedModel, tool
from atto.broker.jetstream import JetStream
from atto.models import FinishChunk, Stall, TextChunk, call
from atto.protocol import codec
from atto.protocol.errors import ModelError
from atto.protocol.events import AnyEvent, EventBatch, RunAbsorbed, RunSuspended
from atto.protocol.ids import encode_session
from atto.protocol.turns import Answer, Resume
from atto.protocol.waits import Wait
from atto_client import Client
from atto_workers import Topology, Worker
from atto_workers.run.outcome import now
from tests.integration.proxy import Proxy
from tests.permissions.deployment import declare, echo, inbox, login, serving

SESSION = "ann@exämple.com"
COMPLETED, FAILED, MISUSED, CANCELLED, SUSPENDED, ABSORBED, BACKLOG_FULL = 0, 1, 2, 3, 4, 5, 75


def as_json(events: list[AnyEvent]) -> list[Any]:
    """The events as they travel."""
    return msgspec.json.decode(msgspec.json.encode(events))


async def seen_by_the_python_client(client: Client, session: str, run_id: str) -> list[Any]:
    return as_json([event async for event in client.attach(session, run_id)])


def weather() -> Agent:
    @tool
    def get_weather(city: str) -> str:
        """Tells the weather."""
        return f"snow in {city}"

    def model(request):
        last = request.messages[-1]
        return call("get_weather", city="Ålesund") if last.role == "user" else 'Snow ☃, "they" say.'

    return Agent("weather", ScriptedModel.of(model), tools=[get_weather])


def stalling(stall: Stall) -> list[Any]:
    return [TextChunk("one "), stall, TextChunk("two"), FinishChunk("stop")]


async def test_submits_streams_and_attaches_again(producer, worker, client):
    async with worker(weather()):
        async with producer(SESSION, "what is the weather?") as produced:
            run_id = await produced.run_id()
            events, code = await produced.end()
        assert events == await seen_by_the_python_client(client, SESSION, run_id)
        assert code == COMPLETED
        assert [event["type"] for event in events][:4] == [
            "run_started", "model_completed", "tool_started", "tool_completed",
        ]  # fmt: skip
        async with producer("--attach", SESSION, run_id) as attached:
            assert await attached.end() == (events, COMPLETED)
        async with producer(SESSION, "what is the weather?", run_id) as again:
            assert await again.end() == (events, COMPLETED)
        assert (await client.snapshot(SESSION)).version == 1


async def test_cancels(producer, worker, client):
    async with worker(lambda _: stalling(Stall())):
        async with producer(SESSION, "hi", "run/1") as produced:
            begun = [await produced.line(), await produced.line()]
            async with producer("--cancel", SESSION, "run/1", "no more") as cancelling:
                assert await cancelling.end() == ([], 0)
            rest, code = await produced.end()
        assert code == CANCELLED
        *kept, last = rest  # what was said until then is kept, and told as a whole
        assert [event.get("finish") for event in kept] == ["cancelled"]
        assert (last["type"], last["reason"]) == ("run_cancelled", "no more")
        assert begun + rest == await seen_by_the_python_client(client, SESSION, "run/1")


async def test_answers_a_wait(producer, worker, client, namespace: str, connection):
    """As no run waits, the answer ends with words."""
    answers = await connection.subscribe(f"{namespace}.answer.*")
    answer = '{"approve": true, "arguments": {"amount": 80}}'
    async with worker(weather()):
        async with producer("--answer", SESSION, "r-7", "w-1", answer, "r-12") as answering:
            events, code = await answering.end()
        assert events == await seen_by_the_python_client(client, SESSION, "r-12")
    assert code == FAILED
    assert events[-1]["code"] == "not_waiting"
    message = await answers.next_msg(20)
    assert message.subject == f"{namespace}.answer.{encode_session(SESSION)}"
    turn = codec.decode_turn(message.data)
    assert turn.run_id == "r-12"
    assert turn.resume == Resume(
        run_id="r-7", answers={"w-1": Answer(approve=True, arguments={"amount": 80})}
    )


async def test_message_ids_hold_a_salt_that_nobody_can_derive(
    producer, jetstream, namespace: str, connection
):
    await Topology(namespace, partitions=1).declare(jetstream)
    turns = await connection.subscribe(f"{namespace}.turn.*")
    ids: list[str] = []
    for _ in range(2):
        async with producer(SESSION, "hi", "r/1"):
            ids.append((await turns.next_msg(20)).headers["Nats-Msg-Id"])
    prefix = f"{encode_session(SESSION)}.r=2F1."
    salts = {message_id.removeprefix(prefix) for message_id in ids}
    assert len(salts) == 2
    assert all(re.fullmatch("[0-9a-f]{16,}", salt) for salt in salts)


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (RunSuspended(seq=1, time=now(), root="r", waits=(Wait(id="w", kind="question"),)), SUSPENDED),
        (RunAbsorbed(seq=1, time=now(), into="other"), ABSORBED),
    ],
)
async def test_says_how_a_run_goes_on_elsewhere(producer, jetstream, namespace: str, ending, code):
    await Topology(namespace, partitions=1).declare(jetstream)
    await jetstream.publish(f"{namespace}.event.s.r", codec.encode(EventBatch(events=(ending,))))
    async with producer("--attach", "s", "r") as attached:
        assert await attached.end() == (as_json([ending]), code)


async def test_goes_on_where_it_was(producer, worker, client):
    async with worker(weather()):
        async with producer(SESSION, "what is the weather?", "r") as produced:
            events, _ = await produced.end()
        assert produced.position == [f"1-{len(events)}"]
        async with producer("--attach", SESSION, "r", "1-2") as attached:
            assert await attached.end() == (events[2:], COMPLETED)
        async with producer("--attach", SESSION, "r", *produced.position) as attached:
            assert await attached.end() == ([], COMPLETED)
        assert attached.position == produced.position


async def test_says_how_a_run_failed(producer, worker, client):
    def broken(_request):
        raise ModelError("the provider says no")

    async with worker(broken):
        async with producer(SESSION, "hi", "r") as produced:
            events, code = await produced.end()
        assert code == FAILED
        assert events[-1]["code"] == "model_error"
        assert events == await seen_by_the_python_client(client, SESSION, "r")


async def test_explains_a_full_backlog(producer, client, jetstream: JetStream, namespace: str):
    await Topology(namespace, partitions=1, backlog=1).declare(jetstream)
    await client.submit(SESSION, "unfinished")
    async with producer(SESSION, "one too many") as produced:
        said, code = await produced.error()
    assert code == BACKLOG_FULL
    assert "backlog full: the session has as many unfinished turns as it may" in said


@pytest.mark.parametrize(
    "words", [(), ("session",), ("--nonsense", "session", "text"), ("--answer", "session", "run", "wait")]
)
async def test_says_how_it_is_used(producer, words):
    async with producer(*words) as produced:
        said, code = await produced.error()
    assert code == MISUSED
    assert "usage" in said


async def test_a_lost_connection_loses_no_event(producer, worker, client, broker, command):
    going_on = asyncio.Event()
    async with (
        Proxy(broker.url) as proxy,
        worker(lambda _: stalling(Stall(going_on))),
        producer(SESSION, "hi", "r", NATS_URL=proxy.url) as produced,
    ):
        events = [await produced.line(), await produced.line()]
        proxy.cut()
        going_on.set()
        rest, code = await produced.end()
        events += rest
        if "bash" in command[0]:  # it leaves it to its caller to attach again
            assert code == MISUSED
            async with producer("--attach", SESSION, "r") as attached:
                events, code = await attached.end()
        assert code == COMPLETED
        assert events == await seen_by_the_python_client(client, SESSION, "r")


async def test_follows_a_run_that_another_worker_goes_on_with(producer, worker, client):
    stall = Stall(reached=asyncio.Event())
    answers = [stalling(stall), "three"]
    async with producer(SESSION, "hi", "r") as produced:
        async with worker(lambda _: answers.pop(0), grace=0.1):
            events = [await produced.line(), await produced.line()]
        async with worker(lambda _: answers.pop(0)):
            rest, code = await produced.end()
    assert code == COMPLETED
    kinds = [event["type"] for event in events + rest]
    assert "step_restarted" in kinds
    assert [event["seq"] for event in events + rest] == list(range(1, len(kinds) + 1))
    async with producer("--attach", SESSION, "r") as attached:
        assert await attached.end() == (events + rest, COMPLETED)
    assert events + rest == await seen_by_the_python_client(client, SESSION, "r")


async def test_works_with_the_permissions_of_a_client(producer, tmp_path):
    environment = {
        "NATS_USER": "acme-client",
        "NATS_PASSWORD": login("acme-client")["password"],
        "ATTO_INBOX_PREFIX": inbox("acme-client"),
        "ATTO_NAMESPACE": "atto",
    }
    async with serving(tmp_path, "accounts.conf") as broker:
        await declare(broker.url, **login("acme-admin"))
        async with (
            Worker(echo(), nats=broker.url, **login("acme-worker")),
            Client(broker.url, **login("acme-client")) as client,
        ):
            async with producer(SESSION, "hi", "r", NATS_URL=broker.url, **environment) as produced:
                events, code = await produced.end()
            assert code == COMPLETED
            assert events == await seen_by_the_python_client(client, SESSION, "r")
