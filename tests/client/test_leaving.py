"""When a caller leaves a run, and what is left of it then."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from atto.protocol.errors import EventsMissing
from atto.protocol.errors import RunCancelled as RunWasCancelled
from atto.protocol.events import RunCancelled, TextDelta
from atto_client.run import AttachedRun, Run

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HALF = (TextDelta(seq=1, step=1, text="a"), TextDelta(seq=2, step=1, text="b"))
REST = (TextDelta(seq=3, step=1, text="c"), RunCancelled(seq=4, time=NOW))


class Listener:
    """Has heard the whole run."""

    def __init__(self):
        self.batches = [HALF, REST]
        self.closed = 0

    async def news(self):
        return self.batches.pop(0)

    def speaker(self, _seq):
        return 1

    async def stop_reading(self):
        pass

    async def close(self):
        self.closed += 1


class Calls:
    """The client: all of its listeners, and the runs that it was told to cancel."""

    def __init__(self):
        self.listeners = []
        self.cancelled = []

    async def listen(self, _session="s", _run_id="r", _after=0):
        self.listeners.append(Listener())
        return self.listeners[-1]

    async def cancel(self, _session, run_id, _reason):
        self.cancelled.append(run_id)


@pytest.fixture
def calls():
    return Calls()


@pytest.fixture(params=["detached", "attached"])
def run(request, calls):
    attached = AttachedRun(calls, "s", "r", begin=calls.listen, entered=set())
    return attached if request.param == "attached" else Run(calls, "s", "r")


async def test_at_the_last_event_nothing_is_left_to_be_closed(run, calls):
    async with aclosing(aiter(run)) as events:
        async for event in events:
            assert calls.listeners[0].closed == (event is REST[-1])
    assert [listener.closed for listener in calls.listeners] == [1]
    assert calls.cancelled == []


async def test_an_iteration_that_is_done_again_replays(run, calls):
    for _ in range(2):
        assert [event async for event in run] == [*HALF, *REST]
    assert [listener.closed for listener in calls.listeners] == [1, 1]


@pytest.mark.parametrize("events", [1, 2, 3])
async def test_only_an_attached_run_that_is_left_early_is_cancelled(run, calls, events):
    async with aclosing(aiter(run)) as iteration:
        for _ in range(events):
            await anext(iteration)
    assert [listener.closed for listener in calls.listeners] == [1]
    assert calls.cancelled == (["r"] if isinstance(run, AttachedRun) else [])


async def test_a_run_that_was_entered_is_left_where_its_block_ends(calls):
    async with AttachedRun(calls, "s", "r", begin=calls.listen, entered=set()) as run:
        assert [event async for event in run] == [*HALF, *REST]
        assert [event async for event in run] == [*HALF, *REST]
        assert [listener.closed for listener in calls.listeners] == [0, 1]
    assert [listener.closed for listener in calls.listeners] == [1, 1]
    assert calls.cancelled == []


async def test_loops_that_begin_at_one_time_enter_the_run_once(calls):
    begun = []

    async def begin():
        begun.append(True)
        await asyncio.sleep(0)
        return await calls.listen()

    entered: set[AttachedRun] = set()
    run = AttachedRun(calls, "s", "r", begin=begin, entered=entered)

    async def loop():
        return [event async for event in run]

    assert await asyncio.gather(loop(), loop(), loop()) == [[*HALF, *REST]] * 3
    assert begun == [True]
    assert [listener.closed for listener in calls.listeners] == [1, 1, 1]
    assert entered == set()
    assert calls.cancelled == []


async def test_a_loop_that_waited_for_another_to_enter_enters_by_itself_if_that_fails(calls):
    begun = []

    async def begin():
        begun.append(True)
        if len(begun) == 1:
            await asyncio.Event().wait()
        return await calls.listen()

    run = AttachedRun(calls, "s", "r", begin=begin, entered=set())
    first, second = asyncio.create_task(anext(aiter(run))), asyncio.create_task(run.result())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first, second])
    assert first.cancelled()
    assert isinstance(second.exception(), RunWasCancelled)  # says the listener that it got
    assert [listener.closed for listener in calls.listeners] == [1]


async def test_an_iteration_that_is_dropped_is_closed_soon(run, calls):
    iteration = aiter(run)
    await anext(iteration)
    del iteration
    async with asyncio.timeout(10):
        while calls.listeners[0].closed == 0:
            await asyncio.sleep(0)
    assert calls.cancelled == (["r"] if isinstance(run, AttachedRun) else [])


async def test_an_iteration_that_is_dropped_at_the_last_event_leaves_no_task(run):
    others = asyncio.all_tasks()
    async for event in run:
        if event is REST[-1]:
            break
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= others


async def test_nothing_comes_after_the_end_or_after_closing(run):
    iteration = aiter(run)
    assert [event async for event in iteration] == [*HALF, *REST]
    with pytest.raises(StopAsyncIteration):
        await anext(iteration)
    other = aiter(run)
    await anext(other)
    await other.aclose()
    await other.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(other)


async def test_an_iteration_whose_listener_fails_is_over(run, calls, monkeypatch):
    async def fail(_):
        raise EventsMissing("they expired")

    monkeypatch.setattr(Listener, "news", fail)
    iteration = aiter(run)
    with pytest.raises(EventsMissing):
        await anext(iteration)
    with pytest.raises(StopAsyncIteration):
        await anext(iteration)
    assert [listener.closed for listener in calls.listeners] == [1]


async def test_a_cancelled_wait_leaves_the_run(run, calls, monkeypatch):
    monkeypatch.setattr(Listener, "news", lambda _: asyncio.get_running_loop().create_future())
    waiting = asyncio.create_task(anext(aiter(run)))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert [listener.closed for listener in calls.listeners] == [1]
    assert calls.cancelled == (["r"] if isinstance(run, AttachedRun) else [])


async def test_two_tasks_cannot_share_an_iteration(run, monkeypatch):
    monkeypatch.setattr(Listener, "news", lambda _: asyncio.get_running_loop().create_future())
    iteration = aiter(run)
    waiting = asyncio.create_task(anext(iteration))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="two tasks"):
        await anext(iteration)
    with pytest.raises(RuntimeError, match="a task waits"):
        await iteration.aclose()
    waiting.cancel()
    await asyncio.wait([waiting])
