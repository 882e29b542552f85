"""A connection that is closed for good is told: to callers, to a worker's process, to its probes."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import nats
import pytest
from nats.aio.client import Client as Connection

from atto import Agent, ScriptedModel
from atto.broker.server import EmbeddedBroker
from atto.models import Stall
from atto.protocol.errors import AcceptanceUnknown, BrokerUnavailable, ConnectionClosed
from atto_client import Client
from atto_workers import Runtime, Worker

_AGENT = Agent("echo", ScriptedModel.of(lambda request: request.messages[-1].text))
_PATIENCE = 30


@contextlib.asynccontextmanager
async def hanging_up(broker: EmbeddedBroker) -> AsyncGenerator["_Door"]:
    """A broker's door that can say `-ERR` to everyone inside, and then stays shut."""
    door = _Door(broker.url)
    server = await asyncio.start_server(door.enter, "127.0.0.1")
    door.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield door
    finally:
        await door.close()
        server.close()


class _Door:
    def __init__(self, url: str) -> None:
        self._port = int(url.rpartition(":")[2])
        self._inside: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.refusal: bytes | None = None
        self.refused = asyncio.Event()
        self.url = ""

    async def enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, answers = None, None
        try:
            there, answers_to = await asyncio.open_connection("127.0.0.1", self._port)
            answers = answers_to
            if self.refusal is not None:
                writer.write(await there.readline())
                await reader.readline()
                writer.write(b"-ERR '%s'\r\n" % self.refusal)
                await writer.drain()
                self.refused.set()
                return
            self._inside.append(writer)
            await asyncio.gather(_copy(reader, answers), _copy(there, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, answers):
                if end is not None:
                    end.close()
            self._tasks.discard(task)

    def say(self, words: bytes) -> None:
        inside, self._inside = self._inside, []
        for writer in inside:
            writer.write(b"-ERR '%s'\r\n" % words)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_everything_that_waits_in_a_client_fails_when_its_connection_is_closed(
    broker: EmbeddedBroker, namespace: str
):
    connection = await nats.connect(broker.url)
    async with (
        asyncio.timeout(_PATIENCE),
        Runtime(_AGENT, nats=broker.url, namespace=namespace),
        Client(namespace=namespace, connection=connection) as client,
    ):
        await client.run("before", "hi").result()
        silent = client.attach("nobody", "ever")

        async def listen() -> None:
            async for _ in silent:
                pass

        waiting = asyncio.create_task(listen())
        await asyncio.sleep(0)
        await connection.close()
        with pytest.raises(ConnectionClosed):
            await waiting
        for call in (
            client.run("s", "x").result(),
            client.submit("s", "x"),
            client.cancel("s", "x"),
            client.snapshot("s"),
        ):
            with pytest.raises(BrokerUnavailable):
                await call


@pytest.mark.parametrize("words", [b"Unknown Protocol Operation", b"maximum control line exceeded", b"Ahem"])
async def test_an_error_after_which_one_can_go_on_is_no_end(
    broker: EmbeddedBroker, namespace: str, words: bytes
):
    async with (
        hanging_up(broker) as door,
        asyncio.timeout(_PATIENCE),
        Runtime(_AGENT, nats=door.url, namespace=namespace) as runtime,
    ):
        await runtime.run("before", "hi").result()
        door.say(words)
        assert (await runtime.run("after", "hi").result()).text == "hi"


@pytest.mark.parametrize("words", [b"User Authentication Expired", b"Authorization Violation"])
@pytest.mark.leaves_consumers
async def test_credentials_that_are_refused_for_good_end_a_worker_and_a_runtimes_callers(
    broker: EmbeddedBroker, namespace: str, words: bytes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("atto.broker.nats_internals.REFUSAL_PATIENCE", 0.5)
    async with hanging_up(broker) as door, asyncio.timeout(_PATIENCE):
        worker = Worker(_AGENT, nats=door.url, namespace=namespace)
        ready = asyncio.Event()
        serving = asyncio.create_task(worker.serve(on_ready=ready.set))
        async with Client(door.url, namespace=namespace) as client:
            await ready.wait()
            await client.run("before", "hi").result()

            async def listen() -> None:
                async for _ in client.attach("nobody", "ever"):
                    pass

            waiting = asyncio.create_task(listen())
            await asyncio.sleep(0)
            assert worker.broken() is None
            door.refusal = words
            door.say(words)
            with pytest.raises(ConnectionClosed, match=r"(?i)auth"):
                await serving
            assert worker.broken() is not None
            with pytest.raises(ConnectionClosed):
                await waiting


async def test_a_refusal_that_passes_is_no_end(broker: EmbeddedBroker, namespace: str):
    async with (
        hanging_up(broker) as door,
        asyncio.timeout(_PATIENCE),
        Runtime(_AGENT, nats=door.url, namespace=namespace) as runtime,
    ):
        await runtime.run("before", "hi").result()
        door.refusal = b"Authorization Violation"
        door.say(b"User Authentication Expired")
        await door.refused.wait()
        door.refusal = None
        assert (await runtime.run("after", "hi").result()).text == "hi"


@pytest.mark.leaves_consumers
async def test_a_worker_whose_connection_the_user_closes_ends_and_stops_what_runs(
    broker: EmbeddedBroker, namespace: str
):
    connection: Connection = await nats.connect(broker.url)
    reached = asyncio.Event()
    slow = Agent("slow", ScriptedModel.of(lambda _: [Stall(None, reached)]))
    async with asyncio.timeout(_PATIENCE):
        worker = Worker(slow, nats=connection, namespace=namespace, grace=300)
        ready = asyncio.Event()
        serving = asyncio.create_task(worker.serve(on_ready=ready.set))
        await ready.wait()
        async with Client(broker.url, namespace=namespace) as client:
            await client.submit("s", "hi")
            await reached.wait()
            await connection.close()
            with pytest.raises(ConnectionClosed):
                await serving
            assert await worker.unready() is not None


async def test_a_submit_in_flight_fails_in_time(broker: EmbeddedBroker, namespace: str):
    connection = await nats.connect(broker.url)
    async with asyncio.timeout(_PATIENCE), Client(namespace=namespace, connection=connection) as client:
        submitting = asyncio.create_task(client.submit("s", "x"))  # nobody has declared the namespace
        await asyncio.sleep(0)
        await connection.close()
        with pytest.raises((BrokerUnavailable, AcceptanceUnknown)):
            await submitting
