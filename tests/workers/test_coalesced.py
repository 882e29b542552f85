"""Those who ask at the same time share one call, which began after they asked."""

import asyncio

import pytest

from atto_workers.coalesced import Coalesced


class Asked:
    def __init__(self) -> None:
        self.begun = 0
        self.go = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return number


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_hundred_callers_cost_two_calls_and_nobody_gets_one_that_began_before():
    asked = Asked()
    async with asyncio.TaskGroup() as tasks:
        shared = Coalesced(asked, tasks)
        first = asyncio.create_task(shared())
        await settled()
        others = [asyncio.create_task(shared()) for _ in range(100)]
        await settled()
        assert asked.begun == 1
        asked.go.set()
        assert await first == 1
        assert await asyncio.gather(*others) == [2] * 100
        assert await shared() == 3


async def test_a_failure_reaches_all_and_the_next_call_is_a_new_one():
    asked = Asked()
    asked.failure = OSError("away")
    asked.go.set()
    async with asyncio.TaskGroup() as tasks:
        shared = Coalesced(asked, tasks)
        outcomes = await asyncio.gather(shared(), shared(), return_exceptions=True)
        assert outcomes == [asked.failure] * 2
        asked.failure = None
        assert await shared() == 2


async def test_a_caller_that_is_cancelled_leaves_the_others_theirs():
    asked = Asked()
    async with asyncio.TaskGroup() as tasks:
        shared = Coalesced(asked, tasks)
        leaving, staying = (asyncio.create_task(shared()) for _ in range(2))
        await settled()
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        asked.go.set()
        assert await staying == 1
