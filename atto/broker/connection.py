"""Connecting: nats-py's options as they are, with defaults for a process that is meant to stay."""

import asyncio
import contextlib
import inspect
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import nats.errors
from nats.aio.client import Client as Connection

from atto.aio.beside import end_tasks, leave_behind
from atto.broker.nats_internals import Guarded, Unencrypted, allow_reconnect
from atto.protocol.errors import BrokerUnavailable

DEFAULT_SERVER = "nats://127.0.0.1:4222"

CLOSE_PATIENCE = 1.0
"""Seconds in which a broker says that it has read all that was sent before a connection is closed."""
_REPEAT = 0.1  # seconds after which a try to connect that goes on is cancelled again

_log = logging.getLogger("atto.broker")
_AWAY = (OSError, TimeoutError, nats.errors.UnexpectedEOF, nats.errors.StaleConnectionError)
_SCHEMES = ("nats", "tls", "ws", "wss")

# nats-py gives up after 60 attempts and waits 2 s between them; a worker or a client outlives its broker.
_DEFAULTS: dict[str, Any] = {
    "max_reconnect_attempts": -1,
    "reconnect_time_wait": 0.25,
    # A broker that says nothing for 4 s is left, before others take a worker for dead.
    "ping_interval": 1,
    "max_outstanding_pings": 3,
    "pending_size": 8 << 20,
}
_KNOWN = inspect.signature(Connection.connect).parameters
if "skip_subject_validation" in _KNOWN:  # since nats-py 2.16
    # Every subject here is made of encoded ids.
    _DEFAULTS["skip_subject_validation"] = True


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
    errors: list[Exception] = []

    async def failed(error: Exception) -> None:
        # What prevents the first connection is raised; what repeats with every try to reconnect is said once.
        is_away = _is_away(error)
        news = "away" if is_away else repr(error)
        level = logging.WARNING if made.is_set() and news not in said else logging.DEBUG
        said.add(news)
        errors[:] = [error]
        if is_away:
            address, reason = _shown(servers), _reason(error)
            _log.log(
                level, "connection %s: the broker at %s is away (%s); trying again", name, address, reason
            )
        else:
            _log.log(level, "connection %s: %s", name, _reason(error))

    check_options(options)
    callbacks = {"reconnected_cb": reconnected, "error_cb": failed}
    connection = await _first_connection(servers, {**callbacks, **arguments}, connect_timeout, errors)
    made.set()
    try:
        yield connection
    finally:
        await close(connection)


async def _first_connection(
    servers: str | list[str], arguments: dict[str, Any], patience: float, errors: list[Exception]
) -> Connection:
    """Tries until `patience` seconds have passed, or for nothing if the broker says so.

    `errors` holds what nats-py met and did not raise.
    """
    _check_addresses(servers)
    addresses = _listed(servers)
    last: Exception | None = None
    once: dict[str, Any] = {**arguments, "allow_reconnect": False}
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while (left := deadline - loop.time()) > 0:
        connection = Guarded()
        # nats-py's own retries would hide why it fails, and go on after a refusal. In a task of its own, for
        # it can swallow its cancellation: Python 3.11's `wait_for` does, if a try fails at the same moment.
        attempt = asyncio.create_task(connection.connect(addresses, **once), name="connect")
        try:
            await asyncio.wait([attempt], timeout=left)
        except asyncio.CancelledError:
            await _abandon(attempt, connection)
            raise
        if not attempt.done():
            await _abandon(attempt, connection)
            break
        error = attempt.exception()
        if error is None:
            allow_reconnect(connection, allowed=arguments.get("allow_reconnect", True))
            return connection
        await close(connection)
        if not isinstance(error, (OSError, nats.errors.Error)):
            raise error
        last = error
        if isinstance(error, Unencrypted) or "authorization" in str(error).lower():
            break
        await asyncio.sleep(min(arguments["reconnect_time_wait"], max(deadline - loop.time(), 0)))
    last = last or next(iter(errors), None) or TimeoutError()
    reason = "no answer in time" if isinstance(last, TimeoutError) else str(last) or repr(last)
    hint = "Is a nats-server running there, and are the credentials right?"
    said = reason if isinstance(last, Unencrypted) else f"{reason}. {hint}"
    raise BrokerUnavailable(f"cannot connect to {_shown(servers)}: {said}") from last


async def _abandon(attempt: "asyncio.Task[None]", connection: Connection) -> None:
    for task in await end_tasks([attempt], patience=CLOSE_PATIENCE, repeat=_REPEAT):
        leave_behind(task)
    await close(connection)
    if attempt.done() and not attempt.cancelled():
        attempt.exception()  # which nobody else asks for


async def close(connection: Connection) -> None:
    """Sends what is still buffered, if the broker is there and reads it, and closes."""
    # RuntimeError: uvloop's, where the broker has closed the transport in between
    with contextlib.suppress(nats.errors.Error, OSError, TimeoutError, RuntimeError):
        if connection.is_connected:
            try:
                await connection.flush(timeout=CLOSE_PATIENCE)  # pyright: ignore[reportArgumentType]
            except nats.errors.TimeoutError:
                if isinstance(connection, Guarded):
                    connection.let_go()
        elif isinstance(connection, Guarded):
            connection.let_go()
    # TypeError: what asyncio of Python 3.12 and 3.13 raises where something is left for a dead transport;
    # AssertionError: nats-py's, for a connection that failed before it was begun, at a key that is not there
    with contextlib.suppress(nats.errors.Error, OSError, RuntimeError, TypeError, AssertionError):
        await connection.close()


def check_options(options: Mapping[str, Any]) -> None:
    """Raises `TypeError` for what is no option of `nats.connect`, so that a slip of the pen is noticed.

    `ValueError` for an `inbox_prefix` with which no reply would come.
    """
    unknown = [name for name in options if name not in _KNOWN]
    if unknown:
        raise TypeError(f"unexpected argument {', '.join(unknown)}: neither ours nor one of nats.connect")
    prefix = options.get("inbox_prefix") or "_INBOX"
    if prefix.split() != [prefix]:
        raise ValueError(f"inbox_prefix {prefix!r}: a subject has no spaces")


def _check_addresses(servers: str | list[str]) -> None:
    for address in _listed(servers) or [""]:
        scheme, separator, rest = address.partition("://")
        if not address or (separator and (scheme not in _SCHEMES or not rest)) or not _has_port(address):
            shown = address if "@" not in address else _shown(address)  # without credentials
            raise BrokerUnavailable(f"{shown!r} is no address of a broker: write it as nats://HOST:PORT")


def _has_port(address: str) -> bool:
    """Whether what stands in the port's place is one; none at all means 4222."""
    try:
        port = urlsplit(address if "://" in address else f"nats://{address}").port
    except ValueError:
        return False
    return port != 0


def _is_away(error: Exception) -> bool:
    """Whether nobody is there, or answers: where one side refuses the other's certificate, somebody does."""
    if isinstance(error, ssl.SSLError):
        return isinstance(error, ssl.SSLEOFError)
    return isinstance(error, _AWAY)


def _reason(error: Exception) -> str:
    """In words, where nats-py and the system have a class or a number."""
    match error:
        case TimeoutError() | nats.errors.TimeoutError():
            return "no answer in time"
        case ConnectionRefusedError():
            return "connection refused"
        case nats.errors.UnexpectedEOF() | ConnectionResetError() | BrokenPipeError() | ssl.SSLEOFError():
            return "connection lost"
        case _:
            return str(error).removeprefix("nats: ") or type(error).__name__


def _shown(servers: str | list[str]) -> str:
    """The addresses without the credentials that they may hold."""
    return ", ".join(address.rpartition("@")[2] for address in _listed(servers))


def _listed(servers: str | list[str]) -> list[str]:
    return servers.split(",") if isinstance(servers, str) else servers
