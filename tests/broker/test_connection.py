"""Addresses as people write them, and the end of a connection whose broker is gone."""

import asyncio

import pytest

from atto.broker.connection import connected
from atto.broker.server import EmbeddedBroker
from atto.protocol.errors import BrokerUnavailable


@pytest.mark.parametrize("form", ["{url}", "nats://127.0.0.1:1,{url}", "{url},nats://127.0.0.1:1"])
async def test_several_addresses_may_be_one_string(broker, form):
    servers = form.format(url=broker.url)
    async with connected(servers, name="test", on_reconnect=lambda: None) as connection:
        assert connection.is_connected


async def test_where_nobody_is_the_addresses_are_told_without_credentials():
    servers = "nats://user:secret@127.0.0.1:1,nats://127.0.0.1:2"
    with pytest.raises(BrokerUnavailable) as caught:
        async with connected(servers, name="test", on_reconnect=lambda: None, connect_timeout=0.3):
            pass
    assert "127.0.0.1:1" in str(caught.value)
    assert "127.0.0.1:2" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_what_is_left_to_say_to_a_broker_that_is_gone_does_not_fail_the_end():
    gone = asyncio.Event()

    async def disconnected() -> None:
        gone.set()

    async with (
        EmbeddedBroker() as broker,
        connected(
            broker.url, name="test", on_reconnect=lambda: None, disconnected_cb=disconnected
        ) as connection,
    ):
        await broker.kill()
        async with asyncio.timeout(10):
            await gone.wait()
        await connection.publish("subject", b"too late")
    assert connection.is_closed
