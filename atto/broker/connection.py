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

    Raises `BrokerUnavailable` if the first connection is not made within `connect_timeout` seconds, or the
    broker refuses the credentials.
    """
    arguments: dict[str, Any] = {**_DEFAULTS, "name": name, **options}
    user_callback = arguments.pop("reconnected_cb", None)

    async def reconnected() -> None:
        said.clear()
        _log.warning("connection %s: reconnected", name)
        on_reconnect()
        if user_callback is not None:
            await user_callback()

    made = asyncio.Event()
    said: set[str] = set()

    async def failed(error: Exception) -> None:
        # What prevents the first connection is raised; what repeats with every try to reconnect is said once.
        is_news = made.is_set() and repr(error) not in said
        said.add(repr(error))
        _log.log(logging.WARNING if is_news else logging.DEBUG, "connection %s: %r", name, error)

    callbacks = {"reconnected_cb": reconnected, "error_cb": failed}
    connection = await _first_connection(servers, {**callbacks, **arguments}, connect_timeout)
    made.set()
    try:
        yield connection
    finally:
        await close(connection)


async def _first_connection(
    servers: str | list[str], arguments: dict[str, Any], patience: float
) -> Connection:
    """Tries until `patience` seconds have passed, or for nothing if the broker says so."""
    last: Exception = TimeoutError("no answer in time")
    once: dict[str, Any] = {**arguments, "allow_reconnect": False}
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience):
            while True:
                connection = Connection()
                try:
                    # nats-py's own retries would hide why it fails, and go on after a refusal.
                    await connection.connect(servers, **once)
                except (OSError, nats.errors.Error) as error:
                    await close(connection)
                    last = error
                    if "authorization" in str(error).lower():
                        break
                    await asyncio.sleep(arguments["reconnect_time_wait"])
                else:
                    connection.options["allow_reconnect"] = arguments.get("allow_reconnect", True)
                    return connection
    raise BrokerUnavailable(
        f"cannot connect to {_shown(servers)}: {str(last) or repr(last)}. "
        "Is a nats-server running there, and are the credentials right?"
    ) from last


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
