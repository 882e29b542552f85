"""Ending a run from outside: executing, queued, abandoned, expired."""

import asyncio
import contextlib
from datetime import UTC, datetime, timedelta

import pytest

from atto import Agent, events, tool
from atto.models import FinishChunk, ScriptedModel, Stall, TextChunk, call
from atto_client import BrokerUnavailable, Client, RunCancelled, RunFailed
from atto_workers import steward


def stalling(reached: asyncio.Event, gate: asyncio.Event | None = None):
    """Says something and stalls, if the user says `wait`."""

    def model(request):
        if request.messages[-1].text == "wait":
            return [TextChunk("so "), Stall(gate, reached), TextChunk("far"), FinishChunk("stop")]
        return "done"

    return ScriptedModel.of(model)


async def test_cancelling_an_executing_run_ends_its_model_stream_and_keeps_what_was_said(worker, client):
    reached = asyncio.Event()
    model = stalling(reached)
    async with worker(model):
        run = await client.submit("s", "wait")
        await reached.wait()
        await run.cancel("changed my mind")
        seen = [event async for event in run]
        with pytest.raises(RunCancelled, match="changed my mind"):
            await run.result()
        assert model.active == 0
        snapshot = await client.snapshot("s")
        assert (await (await client.submit("s", "hi")).result()).version == 2
    assert isinstance(seen[-1], events.RunCancelled)
    assert (seen[-1].reason, seen[-1].version) == ("changed my mind", 1)
    assert isinstance(seen[-2], events.ModelCompleted)
    assert (seen[-2].message.text, seen[-2].finish) == ("so ", "cancelled")
    assert [message.text for message in snapshot.messages] == ["wait", "so "]


async def test_cancelling_reaches_a_tool(worker, client):
    began, ended = asyncio.Event(), asyncio.Event()

    @tool
    async def hang() -> str:
        """Never returns."""
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async with worker(Agent("hanging", ScriptedModel(call("hang")), tools=[hang])):
        run = await client.submit("s", "go")
        await began.wait()
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result()
    assert ended.is_set()


async def test_a_queued_run_is_cancelled_at_once_and_the_others_keep_their_order(worker, client):
    reached, gate = asyncio.Event(), asyncio.Event()
    model = stalling(reached, gate)
    async with worker(model):
        first = await client.submit("s", "wait")
        second = await client.submit("s", "two")
        third = await client.submit("s", "three")
        await reached.wait()
        await second.cancel()
        with pytest.raises(RunCancelled):  # although the first still runs
            await second.result()
        gate.set()
        assert (await first.result()).version == 1
        assert (await third.result()).version == 2
        snapshot = await client.snapshot("s")
    assert [message.text for message in snapshot.messages] == ["wait", "so far", "three", "done"]


async def test_a_run_is_cancelled_before_any_worker_is_there(worker, client):
    async with worker(lambda _: "x"):
        pass  # declares the namespace
    run = await client.submit("s", "hi")
    other = await client.submit("s", "hi")
    await run.cancel("never mind")
    async with worker(lambda _: "done"):
        with pytest.raises(RunCancelled, match="never mind"):
            await run.result()
        assert (await other.result()).version == 1


async def test_leaving_an_attached_run_early_cancels_it(worker, client):
    reached = asyncio.Event()
    async with worker(stalling(reached)):
        async with client.run("s", "wait") as run:
            async for event in run:
                if isinstance(event, events.TextDelta):
                    break
        with pytest.raises(RunCancelled, match="the caller left"):
            await client.attach("s", run.run_id).result()


async def test_a_plain_loop_that_is_left_early_cancels_its_run_soon(worker, client):
    async with worker(stalling(asyncio.Event())):
        run = client.run("s", "wait")
        async for event in run:
            if isinstance(event, events.TextDelta):
                break
        with pytest.raises(RunCancelled):
            await client.attach("s", run.run_id).result()


async def test_a_client_that_is_closed_cancels_the_run_of_a_loop_that_was_just_left(
    worker, client, broker, namespace, caplog
):
    async with worker(stalling(asyncio.Event())):
        async with Client(broker.url, namespace=namespace) as other:
            run = other.run("s", "wait")
            async for event in run:
                if isinstance(event, events.TextDelta):
                    break
        async with asyncio.timeout(30):
            with pytest.raises(RunCancelled, match="the caller left"):
                await client.attach("s", run.run_id).result()
    assert "could not be cancelled" not in caplog.text


async def test_a_client_that_is_closed_cancels_the_runs_that_others_wait_for(
    worker, client, broker, namespace
):
    async with worker(stalling(asyncio.Event())):
        async with Client(broker.url, namespace=namespace) as other:
            run = other.run("s", "wait")
            iteration = aiter(run)
            await anext(iteration)
            waiting = asyncio.create_task(_to_the_end(iteration))
        async with asyncio.timeout(30):
            await asyncio.wait([waiting])
            with pytest.raises(RunCancelled, match="the caller left"):
                await client.attach("s", run.run_id).result()
    # It heard the end, or that the client was closed, whichever came first.
    assert waiting.exception() is None or isinstance(waiting.exception(), BrokerUnavailable)


async def _to_the_end(iteration):
    async for _ in iteration:
        pass


async def test_a_cancelled_caller_cancels_its_run(worker, client):
    reached = asyncio.Event()

    async def caller(run):
        async with run:
            async for _ in run:
                pass

    async with worker(stalling(reached)):
        run = client.run("s", "wait")
        task = asyncio.create_task(caller(run))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(RunCancelled):
            await client.attach("s", run.run_id).result()


async def test_leaving_a_run_that_has_ended_changes_nothing(worker, client):
    async with worker(lambda _: "done"):
        async with client.run("s", "hi") as run:
            seen = [event async for event in run]
        assert (await run.result()).text == "done"
        assert [event async for event in client.attach("s", run.run_id)] == seen


async def test_cancelling_a_run_that_has_ended_changes_nothing(worker, client):
    async with worker(lambda _: "done"):
        run = await client.submit("s", "hi")
        result = await run.result()
        await run.cancel()
        assert await client.attach("s", run.run_id).result() == result
        assert (await (await client.submit("s", "hi")).result()).version == 2


async def test_an_expired_turn_ends_without_a_model_call(worker, client):
    model = ScriptedModel.of(lambda _: "done")
    async with worker(model):
        run = await client.submit("s", "hi", expires=datetime.now(UTC) - timedelta(seconds=1))
        with pytest.raises(RunFailed, match="deadline") as failure:
            await run.result()
    assert failure.value.reason == "expired"
    assert failure.value.retryable
    assert model.requests == []


async def test_a_run_that_takes_longer_than_it_may_expires(worker, client):
    model = stalling(asyncio.Event())
    async with worker(model):
        run = await client.submit("s", "wait", expires=datetime.now(UTC) + timedelta(seconds=0.2))
        with pytest.raises(RunFailed, match="deadline"):
            await run.result()
    assert model.active == 0


async def test_a_former_attempt_that_ends_late_does_not_make_its_successor_deaf(worker, client, monkeypatch):
    """A partition is claimed anew, and what runs in it does not listen to its own end."""
    monkeypatch.setattr(steward, "RENEWAL_GRACE", 0.1)
    monkeypatch.setattr(steward, "STOP_PATIENCE", 0.1)
    may_end = asyncio.Event()
    began = [asyncio.Event(), asyncio.Event()]
    attempts = iter(began)

    @tool(timeout=None)
    async def hang() -> str:
        """Never returns, or only when it may."""
        attempt = next(attempts)
        attempt.set()
        while attempt is began[0] and not may_end.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await may_end.wait()
        if attempt is began[1]:
            await asyncio.Event().wait()
        return ""

    agent = Agent("hanging", ScriptedModel.of(lambda _: call("hang")), tools=[hang])
    async with asyncio.timeout(20), worker(agent) as alone:
        run = await client.submit("s", "go")
        await began[0].wait()
        [former] = [claim for claim in alone._steward.claims.values() if claim.held]
        alone._steward.renew(former)
        await began[1].wait()
        may_end.set()
        while former.mailboxes:
            await asyncio.sleep(0)
        await run.cancel()
        with pytest.raises(RunCancelled):
            await run.result()
