"""Addresses as people write them, and the end of a connection whose broker is gone."""

import asyncio
import contextlib
import logging
import os
import signal
import ssl

import pytest

from atto.broker.connection import check_options, connected
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


@pytest.mark.parametrize("ends_by", ["patience", "cancellation"])
async def test_a_try_that_swallows_its_cancellation_does_not_go_on_for_ever(ends_by: str):
    """As `asyncio.wait_for` of Python 3.11 does, if what it waits for fails in the same iteration."""
    trying = asyncio.Event()

    async def swallows(_: Exception) -> None:
        if not trying.is_set():
            trying.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

    async def connect() -> None:
        patience = 0.1 if ends_by == "patience" else 3600.0
        options = {"connect_timeout": patience, "error_cb": swallows}
        async with connected("nats://127.0.0.1:1", name="test", on_reconnect=lambda: None, **options):
            pass

    task = asyncio.create_task(connect())
    await trying.wait()
    if ends_by == "cancellation":
        task.cancel()
    async with asyncio.timeout(30):
        await asyncio.wait([task])
    if ends_by == "cancellation":
        assert task.cancelled()
    else:
        assert isinstance(task.exception(), BrokerUnavailable)


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


async def test_the_end_does_not_wait_for_a_broker_that_does_not_read_what_is_left_to_say():
    async with EmbeddedBroker() as broker:
        async with asyncio.timeout(10):
            async with connected(broker.url, name="test", on_reconnect=lambda: None) as connection:
                os.kill(broker.pid, signal.SIGSTOP)
                for _ in range(8):  # more than sockets hold
                    await connection.publish("subject", bytes(900_000))
                    await asyncio.sleep(0)
            assert connection.is_closed
        os.kill(broker.pid, signal.SIGCONT)


@pytest.mark.parametrize("asked", ["tls://{place}", "nats://{place}"])
async def test_where_tls_is_asked_for_nothing_is_said_in_the_clear(asked: str):
    said = bytearray()
    over = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576}\r\n')
        said.extend(await reader.read())  # until the other side has closed
        writer.close()
        over.set()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        options = {} if asked.startswith("tls") else {"tls": ssl.create_default_context()}
        with pytest.raises(BrokerUnavailable, match="TLS was asked for"):
            async with connected(
                asked.format(place=f"{host}:{port}"),
                name="test",
                on_reconnect=lambda: None,
                user="ann",
                **options,
            ):
                pass
        async with asyncio.timeout(10):
            await over.wait()
    assert bytes(said) == b""


@pytest.mark.parametrize("place", ["127.0.0.1:port", "127.0.0.1:99999", "127.0.0.1:0", "u:secret@h:port"])
async def test_an_address_whose_port_is_none_is_told_without_its_credentials(place: str):
    with pytest.raises(BrokerUnavailable, match="no address of a broker") as caught:
        async with connected(f"nats://{place}", name="test", on_reconnect=lambda: None):
            pass
    assert "secret" not in str(caught.value)


async def test_a_key_that_cannot_be_read_is_named(broker: EmbeddedBroker):
    with pytest.raises(BrokerUnavailable, match=r"No such file.*nowhere\.nk"):
        async with connected(
            broker.url,
            name="test",
            on_reconnect=lambda: None,
            connect_timeout=0.3,
            nkeys_seed="/nowhere.nk",
        ):
            pass


async def test_a_broker_that_goes_away_is_told_once_and_in_words(caplog):
    back = asyncio.Event()
    async with EmbeddedBroker() as broker:
        url = broker.url
        async with connected(url, name="mine", on_reconnect=back.set, reconnect_time_wait=0.05):
            await broker.kill()
            async with EmbeddedBroker(port=int(url.rpartition(":")[2])), asyncio.timeout(20):
                await back.wait()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings[0].startswith(f"connection mine: the broker at {url} is away (connection ")
    assert warnings[0].endswith("); trying again")
    assert warnings[1] == "connection mine: reconnected"


@pytest.mark.parametrize("prefix", ["a b", "a ", b"a\tb"])
def test_an_inbox_with_spaces_is_refused(prefix: str | bytes):
    with pytest.raises(ValueError, match="no spaces"):
        check_options({"inbox_prefix": prefix})
    check_options({"inbox_prefix": prefix.split()[0]})
