"""`atto attach` and `atto cancel`, and a dead letter that is submitted again."""

import json
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.models import ScriptedModel, Stall, TextChunk
from atto.protocol.events import RunStarted, TextDelta
from atto_client import Client
from atto_workers import DeadLetters, Topology
from tests.cli.commands import atto, background, called
from tests.integration.conftest import client, worker  # noqa: F401 - fixtures


@pytest.fixture
async def letters(broker: EmbeddedBroker, namespace: str) -> AsyncGenerator[DeadLetters]:
    async with DeadLetters.of(broker.url, namespace=namespace) as letters:
        yield letters


async def test_a_run_that_is_over_is_attached_to(worker, client: Client, env, tmp_path: Path):  # noqa: F811
    async with worker("Hello."):
        run = await client.submit("ann", "hi")
        await run.result()
        done = await atto("attach", "ann", run.run_id, cwd=tmp_path, **env)
        assert (done.code, done.out, done.err) == (0, "Hello.\n", "")
        done = await called("attach", "ann", run.run_id, "--after", "1", "--json", cwd=tmp_path, **env)
        numbers = [json.loads(line)["seq"] for line in done.out.splitlines()]
        assert numbers == list(range(2, 2 + len(numbers)))


async def test_a_run_that_is_not_there_is_waited_for_and_that_is_said(
    worker,  # noqa: F811
    client: Client,  # noqa: F811
    env,
    tmp_path: Path,
):
    async with (
        worker("Hello."),
        background("attach", "ann", "later", cwd=tmp_path, **env) as waiting,
        background("attach", "ann", "latter", cwd=tmp_path, **env) as mistaken,
    ):
        for attached in (waiting, mistaken):
            await attached.until("no event of run lat")
        await client.submit("ann", "hi", run_id="later")
        assert await waiting.ended() == 0
        mistaken.process.send_signal(signal.SIGINT)
        assert await mistaken.ended() == 130
    assert (len(waiting.lines), len(mistaken.lines)) == (1, 1)  # it is said once, and not that it goes on


async def test_a_turn_that_no_worker_begins_is_told_and_then_left_or_done(
    worker,  # noqa: F811
    jetstream: JetStream,
    namespace: str,
    env,
    tmp_path: Path,
):
    await Topology(namespace, partitions=4).declare(jetstream)
    async with background("run", "ann", "hi", cwd=tmp_path, **env) as left:
        await left.until("no worker has begun it")
        left.process.send_signal(signal.SIGINT)
        await left.until("the run goes on: atto attach ann")
        assert await left.ended() == 130
    async with background("run", "ann", "hi again", cwd=tmp_path, **env) as waiting:
        await waiting.until("no worker has begun it")
        async with worker(ScriptedModel("Hello.", "Hello again.")):
            assert await waiting.ended() == 0


async def test_a_run_is_cancelled_from_outside(worker, client: Client, env, tmp_path: Path):  # noqa: F811
    async with worker([TextChunk("half"), Stall()]):
        run = await client.submit("ann", "hi")
        async for event in run:
            if isinstance(event, TextDelta):
                break
        done = await atto("cancel", "ann", run.run_id, "--json", cwd=tmp_path, **env)
        assert json.loads(done.out) == {"session": "ann", "run_id": run.run_id}, done.err
        done = await called("attach", "ann", run.run_id, cwd=tmp_path, **env)
    assert (done.code, done.out) == (1, "half\nthe run was cancelled\n")


async def test_a_dead_letter_becomes_a_new_run(
    worker,  # noqa: F811
    client: Client,  # noqa: F811
    jetstream,
    namespace: str,
    env,
    tmp_path: Path,
):
    async with worker("Hello."):
        dead = {"Nats-Msg-Id": "1", "Atto-Code": "attempts_exhausted", "Atto-Time": "2026-01-01T00:00:00Z"}
        dead |= {"Atto-Subject": f"{namespace}.turn.1.ann"}
        await jetstream.publish(f"{namespace}.dead.ann", b'{"input":"hi","run_id":"old"}', headers=dead)
        done = await atto("dlq", "ls", cwd=tmp_path, **env)
        assert done.out.split()[:3] == ["1", "attempts_exhausted", "ann"], done.err
        done = await called("dlq", "requeue", "1", "--json", cwd=tmp_path, **env)
        run_id = json.loads(done.out)["run_id"]
        assert run_id != "old"
        events = [event async for event in client.attach("ann", run_id)]
        assert isinstance(events[0], RunStarted)
        done = await called("dlq", "ls", "--json", cwd=tmp_path, **env)
        assert (done.code, done.out) == (0, "")


async def test_attach_ends_in_a_namespace_that_was_never_declared(tmp_path: Path, env: dict[str, str]):
    code, out, err = await called("attach", "ann", "r", cwd=tmp_path, **env)
    assert (code, out, err.count("\n"), "declared" in err) == (4, "", 1, True), err
