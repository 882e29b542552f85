"""Connecting: nats-py's options as they are, with defaults for a process that is meant to stay."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

import nats.errors
from nats.aio.client import Client as Connection

from atto.protocol.errors import BrokerUnavailable

DEFAULT_SERVER = "nats://127.0.0.1:4222"

_log = logging.getLogger("atto.broker")

# nats-py gives up after 60 attempts and waits 2 s between them; a worker or a client outlives its broker.
_DEFAULTS: dict[str, Any] = {
    "max_reconnect_attempts": -1,
    "reconnect_time_wait": 0.25,
    "ping_interval": 10,
    "max_outstanding_pings": 2,
    "pending_size": 8 << 20,
}


@contextlib.asynccontextmanager
async def connected(
    servers: str | list[str],
    *,
    name: str,
    on_reconnect: Callable[[], None],
    connect_timeout: float = 10.0,
    **options: Any,
) -> AsyncGenerator[Connection, None]:
    """A connection that reconnects for ever and tells when it did.

    `options` are those of `nats.connect` (`user_credentials`, `nkeys_seed`, `tls`, `user`, `password`,
    `token`, `inbox_prefix` …) and win over the defaults.

    Raises `BrokerUnavailable` if the first connection is not made within `connect_timeout` seconds.
    """
    user_callback = options.pop("reconnected_cb", None)
    last_error: list[Exception] = []

    async def reconnected() -> None:
        on_reconnect()
        if user_callback is not None:
            await user_callback()

    async def failed(error: Exception) -> None:
        repeated = bool(last_error) and str(last_error[0]) == str(error)
        last_error[:] = [error]
        _log.log(logging.DEBUG if repeated else logging.WARNING, "connection %s: %r", name, error)

    connection = Connection()
    try:
        async with asyncio.timeout(connect_timeout):
            arguments: dict[str, Any] = {**_DEFAULTS, "name": name, "error_cb": failed, **options}
            arguments["reconnected_cb"] = reconnected
            await connection.connect(servers, **arguments)
    except (OSError, nats.errors.Error) as error:  # TimeoutError is an OSError
        await connection.close()
        why = error if str(error) else (last_error[0] if last_error else error)
        raise BrokerUnavailable(
            f"cannot connect to {_shown(servers)}: {str(why) or repr(why)}. "
            "Is a nats-server running there, and are the credentials right?"
        ) from error
    try:
        yield connection
    finally:
        await close(connection)


async def close(connection: Connection) -> None:
    """Sends what is still buffered, if the broker is there, and closes."""
    if connection.is_connected:
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            await connection.flush(timeout=2)
    await connection.close()


def _shown(servers: str | list[str]) -> str:
    """The addresses without the credentials that they may hold."""
    addresses = servers.split(",") if isinstance(servers, str) else servers
    return ", ".join(address.rpartition("@")[2] for address in addresses)
