"""What is used of nats-py's inside is there, or its absence is told with the version."""

import asyncio

import nats
import pytest
from nats.aio.client import Client as Connection

from atto.broker.nats_internals import check_internals, guard
from atto.broker.server import EmbeddedBroker
from atto.protocol.errors import UnsupportedNatsPy


def test_the_installed_version_is_as_it_is_needed():
    check_internals()


def test_a_method_that_is_gone_or_takes_something_else_is_named():
    class Gone(Connection):
        _build_message = None  # pyright: ignore[reportAssignmentType]

    class Other(Connection):
        async def _process_headers(self, raw: bytes) -> None: ...  # pyright: ignore[reportIncompatibleMethodOverride]

    class Plain(Connection):
        def _process_err(self, err_msg: str) -> None: ...  # pyright: ignore[reportIncompatibleMethodOverride]

    for changed, told in (
        (Gone, "_build_message is gone"),
        (Other, "_process_headers takes self, raw"),
        (Plain, "_process_err is no coroutine"),
    ):
        with pytest.raises(UnsupportedNatsPy, match=rf"nats-py 2\.\d+\.\d+ .*{told}"):
            check_internals(changed)


async def test_a_reader_that_ends_without_a_reason_is_replaced(broker: EmbeddedBroker, namespace: str):
    back = asyncio.Event()

    async def reconnected() -> None:
        back.set()

    connection = await nats.connect(broker.url, reconnected_cb=reconnected, reconnect_time_wait=0.05)
    try:
        guarded = guard(connection)
        assert guard(connection) is guarded

        async def fails(*_: object) -> None:
            raise ValueError("something that nobody expected")

        guarded._process_msg = fails  # pyright: ignore[reportAttributeAccessIssue]
        heard = await connection.subscribe(namespace)
        await connection.publish(namespace, b"x")
        async with asyncio.timeout(20):
            await back.wait()
            del guarded._process_msg
            await connection.publish(namespace, b"y")
            assert (await heard.next_msg(20)).data == b"y"
    finally:
        await connection.close()


async def test_an_answer_to_a_flush_that_nobody_waits_for_any_more_does_no_harm(broker: EmbeddedBroker):
    connection = guard(await nats.connect(broker.url))
    try:
        given_up: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        given_up.cancel()
        await connection._send_ping(given_up)
        await connection.flush()
        assert connection.is_connected
        assert connection.stats["reconnects"] == 0
    finally:
        await connection.close()
