"""The front door, and what it says when something is not as it should be."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from atto import Agent, ScriptedModel
from atto.models import FinishChunk, Stall, TextChunk
from atto.protocol.errors import BrokerFailed, BrokerUnavailable, InvalidSessionId, InvalidTurn
from atto_client import Client
from atto_workers import Runtime, Worker
from atto_workers import runtime as runtimes


def answering(model=lambda _: "hi") -> Agent:
    return Agent("tester", ScriptedModel.of(model))


async def test_it_can_be_opened_again_and_keeps_what_lies_in_its_data_dir(tmp_path: Path):
    runtime = Runtime(answering(), data_dir=tmp_path)
    for version in (1, 2):
        async with runtime:
            assert (await runtime.run("s", "hi").result()).version == version
    with pytest.raises(BrokerUnavailable, match="async with"):
        runtime.run("s", "hi")


async def test_whoever_listens_learns_that_the_embedded_broker_has_ended(tmp_path: Path, monkeypatch):
    brokers = []

    class Watched(runtimes.EmbeddedBroker):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            brokers.append(self)

    monkeypatch.setattr(runtimes, "EmbeddedBroker", Watched)
    reached = asyncio.Event()
    agent = answering(lambda _: [TextChunk("a"), Stall(reached=reached), FinishChunk("stop")])
    async with Runtime(agent, data_dir=tmp_path, worker={"grace": 0.1}) as runtime:
        run = await runtime.submit("s", "go")
        listening = asyncio.create_task(run.result())
        await reached.wait()
        os.kill(brokers[0].pid, signal.SIGKILL)
        with pytest.raises(BrokerFailed, match="all goes on at the next start"):
            await listening
        with pytest.raises(BrokerFailed):
            await runtime.submit("s", "more")
    async with Runtime(answering(), data_dir=tmp_path) as runtime:
        assert (await runtime.attach("s", run.run_id).result()).text == "hi"


async def test_a_body_that_raises_raises_what_it_raised():
    with pytest.raises(KeyError, match="mine"):
        async with Runtime(answering()):
            raise KeyError("mine")


@pytest.mark.parametrize("make", [Client, lambda **options: Worker(answering(), **options)])
def test_a_misspelt_option_is_noticed_at_once(make):
    with pytest.raises(TypeError, match="concurency"):
        make(concurency=3)


@pytest.mark.parametrize(
    "address", ["", "http://127.0.0.1:4222", "nats://", [], "nats://127.0.0.1:1,ftp://x"]
)
async def test_what_is_no_address_is_said_at_once(address):
    with pytest.raises(BrokerUnavailable, match="nats://HOST:PORT"):
        async with Client(address):
            pass


async def test_why_the_broker_cannot_be_reached_is_said():
    with pytest.raises(BrokerUnavailable, match="Connect call failed"):
        async with Client("nats://127.0.0.1:1", connect_timeout=0.3):
            pass


def test_what_cannot_be_submitted_is_said_before_anything_is_sent():
    client = Client()
    for headers in ({"a b": "c"}, {"a": "b\nc"}, {"": "x"}, {"a:b": "x"}):
        with pytest.raises(InvalidTurn, match="cannot travel"):
            client.run("s", "hi", headers=headers)
    with pytest.raises(InvalidTurn, match="datetime"):
        client.run("s", "hi", expires="tomorrow")
    with pytest.raises(InvalidTurn, match="text or a list of parts"):
        client.run("s", None)
    for session in (5, None, b"x"):
        with pytest.raises(InvalidSessionId, match="must be a string"):
            client.run(session, "hi")
