"""Closing a client whose broker is dead, or hangs, while runs are attached."""

import asyncio
import os
import signal

import pytest

from atto.broker.connection import connected
from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.protocol.subjects import Subjects
from atto_client import AcceptanceUnknown, BrokerUnavailable, Client
from atto_workers import Topology

RUNS = 3


async def entered(client: Client) -> None:
    for number in range(RUNS):
        await client.run(f"session-{number}", "hi").__aenter__()


@pytest.fixture
async def broker():
    """One to be killed, with the default namespace declared; no worker is there, so no run begins."""
    async with EmbeddedBroker() as broker:
        async with (
            connected(broker.url, name="test", on_reconnect=lambda: None) as connection,
            JetStream(connection) as jetstream,
        ):
            await Topology(partitions=1).declare(jetstream)
        yield broker


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "atto.client"]


async def test_with_a_dead_broker_it_is_prompt_and_says_once_what_was_not_said(broker, caplog):
    gone = asyncio.Event()

    async def disconnected() -> None:
        gone.set()

    async with asyncio.timeout(30):
        async with Client(broker.url, disconnected_cb=disconnected) as client:
            await entered(client)
            await broker.kill()
            await gone.wait()
            listening = asyncio.create_task(client.attach("session-0", "r").result())
            await asyncio.sleep(0)
            begun = asyncio.get_running_loop().time()
        with pytest.raises(BrokerUnavailable, match="the client was closed"):
            await listening
        took = asyncio.get_running_loop().time() - begun
    assert took < 1.0
    [complaint] = complaints(caplog)
    assert f"{RUNS} runs" in complaint


async def test_with_one_that_hangs_it_is_bounded(broker, caplog):
    async with asyncio.timeout(30):
        async with Client(broker.url) as client:
            await entered(client)
            os.kill(broker.pid, signal.SIGSTOP)
            begun = asyncio.get_running_loop().time()
        took = asyncio.get_running_loop().time() - begun
        os.kill(broker.pid, signal.SIGCONT)
    assert took < 3.0
    [complaint] = complaints(caplog)
    assert f"{RUNS} runs" in complaint


async def test_who_leaves_a_run_already_does_not_hold_it_up(broker, caplog):
    async with asyncio.timeout(30):
        async with Client(broker.url) as client:
            run = client.run("s", "hi")
            await run.__aenter__()
            os.kill(broker.pid, signal.SIGSTOP)
            leaving = asyncio.create_task(run.__aexit__(None, None, None))
            await asyncio.sleep(0)
            begun = asyncio.get_running_loop().time()
        await leaving
        took = asyncio.get_running_loop().time() - begun
        os.kill(broker.pid, signal.SIGCONT)
    assert took < 3.0


async def test_who_is_cancelled_while_the_client_closes_leaves_nothing_behind(broker):
    """The fixture of all tests looks for tasks that are left."""

    async def closing() -> None:
        async with Client(broker.url) as client:
            await entered(client)
            os.kill(broker.pid, signal.SIGSTOP)
            about_to.set()

    about_to = asyncio.Event()
    task = asyncio.create_task(closing())
    async with asyncio.timeout(30):
        await about_to.wait()
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        os.kill(broker.pid, signal.SIGCONT)


async def test_who_still_submits_is_told_at_once_also_where_the_connection_stays_open(broker):
    """No reply can come any more, and nobody is to wait for one."""
    async with connected(broker.url, name="mine", on_reconnect=lambda: None) as connection:
        async with Client(connection=connection) as client:
            os.kill(broker.pid, signal.SIGSTOP)
            submitting = asyncio.create_task(client.submit("s", "hi"))
            await asyncio.sleep(0)
        async with asyncio.timeout(5):
            with pytest.raises(AcceptanceUnknown):
                await submitting
        os.kill(broker.pid, signal.SIGCONT)


async def test_a_run_that_is_about_to_be_entered_is_left_too(broker):
    """Its turn is on its way: it would go on although nobody hears it."""
    async with asyncio.timeout(30):
        async with Client(broker.url) as client:
            entering = asyncio.create_task(client.run("s", "hi").__aenter__())
            await asyncio.sleep(0)
        run = await entering
        async with (
            connected(broker.url, name="test", on_reconnect=lambda: None) as connection,
            JetStream(connection) as jetstream,
        ):
            subjects = Subjects()
            cancel = await jetstream.last(subjects.cancels_stream, subjects.cancel("s", run.run_id))
    assert cancel is not None
