"""Users' code in threads and tasks of its own, which can be left behind."""

import asyncio
import subprocess
import sys
import threading

import pytest

from atto.aio.beside import Threads, in_task, left_behind
from atto.aio.user_code import Escaped, UserCode

CALL = UserCode("tool", "x", "ann", "r1")


async def test_no_more_threads_run_than_there_may():
    threads = Threads(limit=2)
    release = threading.Event()
    most = []

    def work(number):
        most.append(threads.running)
        release.wait()
        return number

    tasks = [asyncio.create_task(threads.run(lambda n=n: work(n), "x")) for n in range(7)]
    while len(most) < 2:
        await asyncio.sleep(0.001)
    cancelled = tasks.pop(3)
    cancelled.cancel()
    await asyncio.wait([cancelled])
    release.set()
    assert await asyncio.gather(*tasks) == [0, 1, 2, 4, 5, 6]
    assert max(most) <= 2
    while threads.running:
        await asyncio.sleep(0.001)


async def test_a_thread_whose_caller_is_cancelled_counts_until_it_ends():
    threads = Threads(limit=1)
    began, release = threading.Event(), threading.Event()

    def work():
        began.set()
        release.wait()

    async def enter():
        with UserCode("tool", "stuck"):
            await threads.run(work, "x")

    task = asyncio.create_task(enter())
    await asyncio.to_thread(began.wait)
    task.cancel()
    await asyncio.wait([task])
    assert [call.name for call in left_behind()] == ["stuck"]
    following = asyncio.create_task(threads.run(lambda: 7, "y"))
    release.set()
    assert await following == 7
    while left_behind():
        await asyncio.sleep(0.001)


async def test_a_task_that_swallows_its_cancellation_is_cancelled_again_and_then_left_behind():
    cancels, release = [], asyncio.Event()
    began = asyncio.Event()

    async def stubborn():
        while not release.is_set():
            try:
                began.set()
                await release.wait()
            except asyncio.CancelledError:
                cancels.append(1)

    caller = asyncio.create_task(in_task(stubborn(), "x", CALL, patience=0.05, repeat=0.01))
    await began.wait()
    caller.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()
    assert len(cancels) >= 2
    assert left_behind() == [CALL]
    release.set()
    while left_behind():
        await asyncio.sleep(0.001)


async def test_a_task_that_lets_go_the_second_time_is_waited_for():
    ended, began = [], asyncio.Event()

    async def slow():
        try:
            began.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()
        finally:
            ended.append(1)

    caller = asyncio.create_task(in_task(slow(), "x", CALL, patience=60, repeat=0.01))
    await began.wait()
    caller.cancel()
    await asyncio.wait([caller])
    assert (caller.cancelled(), ended, left_behind()) == (True, [1], [])


async def test_one_that_is_cancelled_and_ends_otherwise_was_cancelled():
    began = asyncio.Event()

    async def transforms():
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            raise ValueError("in the clean-up")

    caller = asyncio.create_task(in_task(transforms(), "x", CALL))
    await began.wait()
    caller.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()


async def test_a_task_that_cancels_itself_harms_nobody_else():
    async def own():
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    with pytest.raises(Escaped):
        await in_task(own(), "x", CALL)
    assert asyncio.current_task().cancelling() == 0


def test_a_task_left_behind_does_not_hold_up_asyncio_run():
    script = f"""
import asyncio, sys
sys.path[:0] = {sys.path!r}
from atto.aio.beside import in_task
from atto.aio.user_code import UserCode
async def stubborn():
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
async def main():
    caller = asyncio.create_task(in_task(stubborn(), "x", UserCode("tool", "x"), patience=0.05))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait([caller])
    print("ended")
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == ("ended\n", "tool x ignores its cancellation: left behind\n")
