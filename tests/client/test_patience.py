"""Waits that last too long end, each in its time, although one timer serves all of them."""

import asyncio

from atto_client.patience import COARSENESS, Patience

LATE = 0.5
"""Seconds for which a busy machine may keep a timer waiting."""


async def test_a_wait_ends_with_what_it_is_told():
    patience, waiter = Patience(), asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(waiter.set_result, True)
    assert await patience.wait(waiter, 60.0)
    patience.close()


async def test_waits_end_in_the_order_of_their_deadlines_whatever_order_they_began_in():
    loop, patience = asyncio.get_running_loop(), Patience()
    ended: list[float] = []

    async def wait(seconds: float) -> None:
        began = loop.time()
        assert not await patience.wait(loop.create_future(), seconds)
        assert seconds - 0.002 <= loop.time() - began < seconds + COARSENESS + LATE
        ended.append(seconds)

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for seconds in (0.2, 0.05, 0.3, 0.1):
            tasks.create_task(wait(seconds))
    assert ended == [0.05, 0.1, 0.2, 0.3]


async def test_a_wait_that_begins_when_the_timer_has_outlived_another_ends_too():
    loop, patience = asyncio.get_running_loop(), Patience()
    waiter = loop.create_future()
    loop.call_soon(waiter.set_result, True)
    async with asyncio.timeout(10):
        assert await patience.wait(waiter, 0.05)
        assert not await patience.wait(loop.create_future(), 0.1)
        assert not await patience.wait(loop.create_future(), 0.01)


async def test_a_cancelled_wait_is_forgotten():
    loop, patience = asyncio.get_running_loop(), Patience()
    waiting = asyncio.create_task(patience.wait(loop.create_future(), 0.05))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    async with asyncio.timeout(10):
        assert not await patience.wait(loop.create_future(), 0.1)
