"""Messages are handled in order as they arrive, and a handler that raises costs its message only."""

import asyncio

import pytest
from nats.aio.client import Client as Connection

from atto.broker.hearing import subscribe


async def test_every_message_is_heard_in_order(connection: Connection, namespace: str):
    heard: list[bytes] = []
    ended = asyncio.Event()

    def hear(message):
        heard.append(message.data)
        if message.data == b"99":
            ended.set()

    subscription = await subscribe(connection, f"{namespace}.*", hear)
    for number in range(100):
        await connection.publish(f"{namespace}.x", b"%d" % number)
    async with asyncio.timeout(10):
        await ended.wait()
    assert heard == [b"%d" % number for number in range(100)]
    await subscription.unsubscribe()
    await connection.publish(f"{namespace}.x", b"late")
    await _round_trip(connection)
    assert len(heard) == 100


async def test_no_task_is_made_for_it(connection: Connection, namespace: str):
    before = asyncio.all_tasks()
    subscription = await subscribe(connection, namespace, lambda _: None)
    assert asyncio.all_tasks() == before
    await subscription.unsubscribe()


async def test_an_error_of_the_hearer_is_logged_and_the_connection_goes_on(
    connection: Connection, namespace: str, caplog: pytest.LogCaptureFixture
):
    heard: list[bytes] = []

    def hear(message):
        if message.data == b"bad":
            raise ValueError("no good")
        heard.append(message.data)

    subscription = await subscribe(connection, namespace, hear)
    for data in (b"one", b"bad", b"two"):
        await connection.publish(namespace, data)
    await _round_trip(connection)
    assert heard == [b"one", b"two"]
    assert connection.is_connected
    assert "could not be handled" in caplog.text
    await subscription.unsubscribe()


async def _round_trip(connection: Connection) -> None:
    """Returns when the broker has what was said, and we have what it said. nats-py's first ping may overtake
    what is still buffered, the second cannot.
    """
    await connection.flush()
    await connection.flush()
