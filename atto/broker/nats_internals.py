"""Everything that atto uses of nats-py beyond its public interface, and the guard that stands in its reader.

nats-py ends its reader in silence when it cannot read what arrives, and keeps the connection open: a process
that hears nothing and looks well. It closes a connection for good on errors after which others would go on.
`Guarded` reads any bytes, reconnects wherever that can help, and tells whoever asked when it cannot.
"""
# pyright: reportPrivateUsage=false

import asyncio
import contextlib
import importlib.metadata
import inspect
import logging
from collections.abc import Callable
from typing import Any, cast

import nats.errors
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol.parser import Parser

from atto.broker.reading import GuardedParser
from atto.broker.wire import read_headers, readable
from atto.protocol.errors import UnsupportedNatsPy

REFUSAL_PATIENCE = 5.0
"""Seconds for which a broker may refuse the credentials on a reconnect: they may be about to be renewed."""

_log = logging.getLogger("atto.broker")

# Parameters of what is overridden or called here; those marked are coroutines.
_METHODS: dict[str, tuple[bool, tuple[str, ...]]] = {
    "_build_message": (False, ("self", "sid", "subject", "reply", "data", "headers")),
    "_process_headers": (True, ("self", "headers")),
    "_process_msg": (True, ("self", "sid", "subject", "reply", "data", "headers")),
    "_process_err": (True, ("self", "err_msg")),
    "_process_info": (True, ("self", "info", "initial_connection")),
    "_process_ping": (True, ("self",)),
    "_process_pong": (True, ("self",)),
    "_process_op_err": (True, ("self", "e")),
    "_process_connect_init": (True, ("self",)),
    "_close": (True, ("self", "status", "do_cbs")),
}
_ATTRIBUTES = (
    "_current_server",
    "_err",
    "_error_cb",
    "_flush_queue",
    "_flusher_task",
    "_max_payload",
    "_max_pending_size",
    "_pending",
    "_pending_data_size",
    "_pings_outstanding",
    "_pongs",
    "_ps",
    "_reading_task",
    "_status",
    "_subs",
    "_transport",
    "options",
)
_PARSER_ATTRIBUTES = ("buf", "header_needed", "msg_arg", "nc", "needed", "state")


def check_internals(client: type[Connection] = Connection, parser: type[Parser] = Parser) -> None:
    """Raises `UnsupportedNatsPy`, naming all that is not as it was when this file was written."""
    changes = [
        change
        for name, (is_coroutine, parameters) in _METHODS.items()
        if (change := _change(client, name, parameters, is_coroutine=is_coroutine))
    ]
    if change := _change(parser, "parse", ("self", "data"), is_coroutine=True):
        changes.append(change)
    if "future" not in inspect.signature(cast("Any", client).subscribe).parameters:
        changes.append("Client.subscribe has no parameter `future`")
    if not changes:
        made = client()
        changes += [f"Client has no {name}" for name in _ATTRIBUTES if not hasattr(made, name)]
        read = parser(made)
        changes += [f"Parser has no {name}" for name in _PARSER_ATTRIBUTES if not hasattr(read, name)]
        if not hasattr(Subscription(made), "_future"):
            changes.append("Subscription has no _future")
    if changes:
        version = importlib.metadata.version("nats-py")
        raise UnsupportedNatsPy(
            f"nats-py {version} is not as atto needs it: {'; '.join(changes)}. "
            "Install a version that atto's requirements allow."
        )


def _change(owner: type, name: str, parameters: tuple[str, ...], *, is_coroutine: bool) -> str | None:
    method = getattr(owner, name, None)
    if method is None:
        return f"{owner.__name__}.{name} is gone"
    found = tuple(inspect.signature(method).parameters)
    if found != parameters:
        return f"{owner.__name__}.{name} takes {', '.join(found)} instead of {', '.join(parameters)}"
    if inspect.iscoroutinefunction(method) != is_coroutine:
        return f"{owner.__name__}.{name} is {'no' if is_coroutine else 'a'} coroutine"
    return None


check_internals()


class Unencrypted(nats.errors.Error):
    """TLS was asked for and is not to be had."""

    def __str__(self) -> str:
        return (
            "TLS was asked for, but the server does not require it: give it a `tls` block, or write nats://"
        )


class Guarded(Connection):
    """A connection that no bytes can deafen, and that says nothing in the clear where TLS was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._begin_guard()

    def _begin_guard(self) -> None:
        """Also of a connection that was made without it, and may be open."""
        self._on_closed: dict[object, Callable[[str], None]] = {}
        self._closed_because: str | None = None
        self._refused_since: float | None = None
        self._ending: asyncio.Task[None] | None = None
        parser = cast("Any", self._ps)
        parser.__class__ = GuardedParser
        parser.take_over()
        self._watch_reader()

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        return read_headers(headers) if headers else None

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        try:
            return super()._build_message(sid, subject, reply, data, headers)
        except UnicodeDecodeError:
            shown, answered = readable(subject).encode(), readable(reply).encode()
            return super()._build_message(sid, shown, answered, data, headers)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():  # of a flush that did not wait for it any more
            self._pongs.pop(0)
            self._pings_outstanding = 0
            return
        await super()._process_pong()

    async def _process_err(self, err_msg: str) -> None:
        """Told by the broker. Where nats-py would close for good, it is reconnected to instead."""
        text = err_msg.strip("'")
        if "stale connection" in text:
            await super()._process_err(err_msg)
            return
        error = nats.errors.AuthorizationError() if _is_refusal(text) else nats.errors.Error(f"nats: {text}")
        self._err = error
        await self._error_cb(error)
        if not text.startswith(_HARMLESS):
            await self._give_up(error)

    async def _give_up(self, error: Exception) -> None:
        """Reconnects, if the connection may: this one is of no use any more."""
        if self.options["allow_reconnect"]:
            await self._process_op_err(error)
        else:
            # In a task of its own, since it ends the one that reads.
            self._ending = asyncio.create_task(self._close(Connection.CLOSED, True), name="broker hung up")

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # nats-py follows the server: without `tls_required` in its first line, which anybody on the way can
        # take out, it would send the password unencrypted, `tls://` and certificates or not.
        if initial_connection and self._wants_tls() and not info.get("tls_required"):
            raise Unencrypted
        await super()._process_info(info, initial_connection)

    async def _process_connect_init(self) -> None:
        try:
            await super()._process_connect_init()
        except nats.errors.Error as error:
            if self.options["allow_reconnect"] and _is_refusal(str(error)):
                self._check_patience(error)
            raise
        self._refused_since = None
        self._watch_reader()

    def _check_patience(self, error: nats.errors.Error) -> None:
        """nats-py would knock for ever at a door that stays shut."""
        now = asyncio.get_running_loop().time()
        if self._refused_since is None:
            self._refused_since = now
        elif now - self._refused_since > REFUSAL_PATIENCE:
            self._closed_because = f"the broker refuses the credentials: {_words(error)}"
            raise nats.errors.NoServersError from error  # which closes it

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if not self.is_closed:
            if self._closed_because is None:
                self._closed_because = "it was closed" if self._err is None else _words(self._err)
            for tell in list(self._on_closed.values()):
                tell(self._closed_because)
        await super()._close(status, do_cbs)

    def _watch_reader(self) -> None:
        if self._reading_task is not None:
            self._reading_task.add_done_callback(self._reader_ended)

    def _reader_ended(self, task: asyncio.Task[None]) -> None:
        """Ended it has where it was told to, or where nats-py met something that it did not expect."""
        if task is not self._reading_task or task.cancelled() or task.cancelling() or not self.is_connected:
            return
        _log.error("the connection's reader has ended without a reason: reconnecting")
        self._ending = asyncio.create_task(self._give_up(nats.errors.ProtocolError()), name="reader ended")

    def _wants_tls(self) -> bool:
        server = self._current_server
        assert server is not None  # noqa: S101 - there is one before its first line
        if self.options["tls_handshake_first"]:  # it is encrypted already, by whoever
            return False
        return server.uri.scheme == "tls" or ("tls" in self.options and server.uri.scheme == "nats")

    def let_go(self) -> None:
        """Of a broker that does not read: nats-py would wait for ever until it has what is left for it. Or of
        one whose certificate was refused: for ever, too, until a transport without its handshake is closed.
        """
        self._pending, self._pending_data_size = [], 0
        writer = getattr(self._transport, "_io_writer", None)  # a WebSocket has none
        if writer is not None:
            writer.transport.abort()
            self._transport = None


# Said of one request; the broker keeps the connection open, or the next one would fare no better.
_HARMLESS = (
    "permissions violation",
    "invalid subject",
    "invalid publish subject",
    "invalid subscription",
    "maximum subscriptions exceeded",
)


def _is_refusal(text: str) -> bool:
    text = text.lower()
    return "authorization violation" in text or (
        "authentication" in text and ("expired" in text or "revoked" in text)
    )


def _words(error: Exception) -> str:
    return str(error).removeprefix("nats: ") or type(error).__name__


def guard(connection: Connection) -> Guarded:
    """The same connection, guarded from now on: also one that nats-py's own `connect` made."""
    if isinstance(connection, Guarded):
        return connection
    kind = type(connection)
    cast("Any", connection).__class__ = (
        Guarded if kind is Connection else type(f"Guarded{kind.__name__}", (Guarded, kind), {})
    )
    guarded = cast("Guarded", connection)
    guarded._begin_guard()
    return guarded


def on_closed(connection: Connection, tell: Callable[[str], None]) -> Callable[[], None]:
    """`tell` is called once, with the reason, when the connection is closed for good; returns what ends that.

    It is told soon if the connection is closed already.
    """
    guarded = guard(connection)
    token = object()
    callbacks = guarded._on_closed
    callbacks[token] = tell
    if guarded.is_closed:
        asyncio.get_running_loop().call_soon(_tell_late, callbacks, token, closed_because(guarded))
    return lambda: callbacks.pop(token, None) and None


def _tell_late(callbacks: dict[object, Callable[[str], None]], token: object, reason: str) -> None:
    if (tell := callbacks.pop(token, None)) is not None:
        tell(reason)


def closed_because(connection: Connection) -> str:
    """Why the connection is closed, in words."""
    return getattr(connection, "_closed_because", None) or "it was closed"


def allow_reconnect(connection: Connection, *, allowed: bool) -> None:
    """Of a connection that was made without."""
    connection.options["allow_reconnect"] = allowed


async def reconnect(connection: Connection, reason: str) -> None:
    """Leaves a broker that does not answer; no-op where reconnecting is not allowed."""
    if connection.is_connected and connection.options["allow_reconnect"]:
        with contextlib.suppress(nats.errors.Error, OSError):
            await guard(connection)._process_op_err(nats.errors.Error(f"nats: {reason}"))
