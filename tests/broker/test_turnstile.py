"""A crowd that speaks in one moment."""

import asyncio

import pytest

from atto.broker.connection import Connection, connected
from atto.broker.turnstile import GROUP, ROOM, Turnstile

_SIZE = 1024


@pytest.fixture
async def connection(broker):
    async with connected(broker.url, name="test", on_reconnect=lambda: None) as connection:
        yield connection


async def test_the_first_are_not_kept_waiting_for_the_last(connection: Connection, namespace: str):
    """What is said is sent by the group, and in the order in which the tasks came."""
    turnstile = Turnstile(connection)
    said: list[int] = []
    most = 0

    async def speak(number: int) -> None:
        nonlocal most
        await turnstile.passed()
        await connection.publish(f"{namespace}.said", bytes(_SIZE))
        said.append(number)
        most = max(most, connection.pending_data_size)

    async with asyncio.TaskGroup() as crowd:
        for number in range(300):
            crowd.create_task(speak(number))
    assert said == list(range(300))
    assert ROOM <= most <= ROOM + (GROUP + 1) * 2 * _SIZE


class Buffered:
    """What a turnstile asks of a connection."""

    pending_data_size = 2 * ROOM
    is_connected = True


async def test_who_is_cancelled_holds_up_nobody():
    connection = Buffered()
    turnstile = Turnstile(connection)  # pyright: ignore[reportArgumentType]
    waiting = [asyncio.create_task(turnstile.passed()) for _ in range(3 * GROUP)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    connection.pending_data_size = 0
    async with asyncio.timeout(10):
        results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, False] * (
        3 * GROUP // 2
    )


async def test_a_broker_that_reads_nothing_is_not_waited_for():
    """As far as the turnstile goes: what is published waits in the connection then, and is bounded there."""
    turnstile = Turnstile(Buffered())  # pyright: ignore[reportArgumentType]
    async with asyncio.timeout(10), asyncio.TaskGroup() as crowd:
        for _ in range(3):
            crowd.create_task(turnstile.passed())


async def test_nobody_overtakes_those_that_have_just_been_let_through():
    """They go on a round of the event loop later; who comes in between goes after them."""
    connection = Buffered()
    turnstile = Turnstile(connection)  # pyright: ignore[reportArgumentType]
    said: list[str] = []

    async def speak(word: str) -> None:
        await turnstile.passed()
        said.append(word)

    async with asyncio.TaskGroup() as crowd:
        crowd.create_task(speak("first"))
        await asyncio.sleep(0)  # it waits
        await asyncio.sleep(0)
        connection.pending_data_size = 0
        crowd.create_task(speak("second"))  # right after the first is let through
    assert said == ["first", "second"]
