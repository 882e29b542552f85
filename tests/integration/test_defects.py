"""Defects of ours, and what a broker refuses, in the middle of a run: they cost the turn at the most."""

import asyncio
import json
import logging

import pytest

from atto import Agent, events
from atto.models import FinishChunk, ScriptedModel, TextChunk
from atto.protocol.errors import ModelError
from atto.protocol.messages import Origin
from atto.protocol.subjects import Subjects
from atto_workers import ModelPolicy, RetryPolicy
from atto_workers.run.ending import Ending
from atto_workers.run.runner import TurnRunner

PATIENCE = 20


async def heard(run):
    async with asyncio.timeout(PATIENCE):
        return [event async for event in run]


def broken(times, real):
    """Raises so often, then does what the real one does."""
    left = iter(range(times))

    async def method(self, *arguments):
        if next(left, None) is not None:
            raise RuntimeError("a defect")
        return await real(self, *arguments)

    return method


async def test_a_defect_before_the_commit_fails_the_run_for_whoever_listens(worker, client, monkeypatch):
    monkeypatch.setattr(TurnRunner, "_outcome", broken(1, TurnRunner._outcome))
    async with worker(ScriptedModel.of(lambda _: "hello")):
        seen = await heard(client.run("s", "hi"))
        following = await client.run("s", "again").result()
    assert isinstance(seen[-1], events.RunFailed)
    assert (seen[-1].code, following.version) == ("internal", 1)


async def test_a_defect_after_the_commit_does_not_make_a_failure_of_it(worker, client, monkeypatch):
    monkeypatch.setattr(Ending, "end", broken(1, Ending.end))
    async with worker(ScriptedModel.of(lambda _: "hello")):
        seen = await heard(client.run("s", "hi"))
        following = await client.run("s", "again").result()
    assert isinstance(seen[-1], events.RunCompleted)
    assert (seen[-1].text, seen[-1].version, following.version) == ("hello", 1, 2)


async def test_a_defect_that_stays_costs_neither_the_worker_nor_other_sessions(worker, client, monkeypatch):
    real = Ending.end

    async def end(self, delivery, log, outcome):
        if delivery.session == "broken":
            raise RuntimeError("a defect")
        await real(self, delivery, log, outcome)

    async with worker(ScriptedModel.of(lambda _: "hello")):
        monkeypatch.setattr(Ending, "end", end)
        await client.submit("broken", "hi")
        assert (await client.run("other", "hi").result()).text == "hello"
        monkeypatch.undo()


async def test_a_stream_that_is_full_is_waited_for(worker, client, jetstream, namespace, caplog):
    stream = Subjects(namespace).events_stream

    async def bounded(**bounds):
        config = json.loads(await jetstream.api(f"STREAM.INFO.{stream}"))["config"]
        await jetstream.api(f"STREAM.UPDATE.{stream}", {**config, **bounds})

    caplog.set_level(logging.DEBUG, logger="atto.worker")
    async with worker(ScriptedModel.of(lambda _: "hello"), store="memory:"):
        await client.run("a", "hi").result()
        await bounded(max_msgs=1, discard="new")
        run = await client.submit("b", "hi")
        async with asyncio.timeout(PATIENCE):
            while "maximum messages exceeded" not in caplog.text:
                await asyncio.sleep(0.01)
        await bounded(max_msgs=-1, discard="old")
        seen = await heard(run)
    assert seen[-1].text == "hello"


@pytest.mark.parametrize("words", ["half \ud83d", "x" * 1_200_000])
async def test_what_a_provider_says_of_its_failure_travels_whatever_it_is(worker, client, words):
    class Failing:
        origin = Origin("x", "y")

        def __init__(self):
            self.asked = 0

        async def stream(self, _request):
            self.asked += 1
            yield TextChunk("hi")
            if self.asked == 1:
                raise ModelError(words, transient=True, status=503)
            yield FinishChunk("stop")

    async with worker(Agent("a", Failing()), models=ModelPolicy(retries=RetryPolicy(base=0.01))):
        seen = await heard(client.run("s", "hi"))
    assert (seen[-1].text, seen[-1].version) == ("hi", 1)
