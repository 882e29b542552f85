"""A body that is ended from outside, told apart from all other cancellations."""

import asyncio

import pytest

from atto_workers.interruption import Interruption
from tests.workers.virtual_time import settle


async def test_an_interrupted_body_ends_and_the_task_goes_on():
    body = Interruption()

    async def work() -> str:
        with body:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return "went on"

    task = asyncio.create_task(work())
    await settle()
    body.interrupt()
    assert await task == "went on"
    assert body.is_interrupted
    assert task.cancelling() == 0


async def test_a_body_that_interrupts_itself_ends_at_its_next_await():
    passed: list[str] = []
    with Interruption() as body:
        body.interrupt()
        passed.append("still here")
        await asyncio.Event().wait()
        passed.append("never")
    assert body.is_interrupted
    assert passed == ["still here"]


async def test_one_that_comes_after_the_end_does_nothing():
    with Interruption() as body:
        body.interrupt()
    body.interrupt()
    await settle()
    assert not body.is_interrupted


async def test_a_cancellation_of_the_task_is_not_swallowed():
    async def work():
        with Interruption():
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_of_both_at_once_the_cancellation_wins():
    body = Interruption()

    async def work():
        with body:
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await settle()
    body.interrupt()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not body.is_interrupted


async def test_an_error_of_the_body_stays_what_it_is():
    body = Interruption()

    async def work():
        with body:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise ValueError("as it was let go") from None

    task = asyncio.create_task(work())
    await settle()
    body.interrupt()
    with pytest.raises(ValueError, match="let go"):
        await task
    assert task.cancelling() == 0


async def test_of_two_around_one_another_only_the_interrupted_one_ends():
    inner, outer = Interruption(), Interruption()

    async def work() -> str:
        with outer:
            with inner:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            return "the outer one went on"
        return "the outer one ended"

    task = asyncio.create_task(work())
    await settle()
    inner.interrupt()
    assert await task == "the outer one went on"
    assert (inner.is_interrupted, outer.is_interrupted) == (True, False)
