"""A pooler in transaction mode, at its worst: each transaction is given to another connection."""

import asyncio
import contextlib
import itertools
import struct
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import NamedTuple, Self

# Of the frontend/backend protocol, version 3.0.
_SSL_REQUEST = 80877103
_PROTOCOL = 196608
_AWAITED = (b"S", b"Q", b"H")  # Sync, Query, Flush: what clients wait for the answer to
_TERMINATE = b"X"
_READY_FOR_QUERY = b"Z"
_IDLE = b"I"


class _Server(NamedTuple):
    """One of a client's connections, and how the server greeted it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    greeting: bytes


class TransactionPooler:
    """`async with TransactionPooler(host, port) as pooler`; clients connect to `pooler.port`.

    Each client has `connections`, which take turns. `round_trips` counts the requests that clients waited
    for, apart from connecting. Requests to cancel are dropped.
    """

    def __init__(self, host: str, port: int, *, connections: int = 3) -> None:
        self.connections = connections
        self.round_trips = 0
        self._target = (host, port)
        self._clients: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(contextlib.closing(writer))
            startup = await _startup(reader, writer)
            if startup is None:
                return
            servers = [
                await stack.enter_async_context(_connected(*self._target, startup))
                for _ in range(self.connections)
            ]
            writer.write(servers[0].greeting)
            requests = asyncio.Queue[bytes]()
            answering = asyncio.create_task(_answer(requests, itertools.cycle(servers), writer))
            stack.callback(answering.cancel)
            async for kind, message in _messages(reader):
                if kind == _TERMINATE:
                    return
                self.round_trips += kind in _AWAITED
                requests.put_nowait(message)


async def _answer(
    requests: asyncio.Queue[bytes], servers: "itertools.cycle[_Server]", writer: asyncio.StreamWriter
) -> None:
    """One transaction after the other, each on the next server."""
    for server in servers:
        asking = asyncio.create_task(_ask(requests, server))
        try:
            async for kind, message in _messages(server.reader):
                writer.write(message)
                if kind == _READY_FOR_QUERY and message.endswith(_IDLE):
                    break
            else:
                writer.close()
                return
        finally:
            asking.cancel()
            await asyncio.wait([asking])


async def _ask(requests: asyncio.Queue[bytes], server: _Server) -> None:
    while True:
        server.writer.write(await requests.get())


@contextlib.asynccontextmanager
async def _connected(host: str, port: int, startup: bytes) -> AsyncGenerator[_Server]:
    reader, writer = await asyncio.open_connection(host, port)
    with contextlib.closing(writer):
        writer.write(startup)
        greeting = b""
        async for kind, message in _messages(reader):
            greeting += message
            if kind == _READY_FOR_QUERY:
                break
        yield _Server(reader, writer, greeting)


async def _startup(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
    """The client's first message, or None for one that does not come to stay."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readexactly(8)
            length, code = struct.unpack("!ii", head)
            body = await reader.readexactly(length - 8)
            if code != _SSL_REQUEST:
                return head + body if code == _PROTOCOL else None
            writer.write(b"N")
    return None


async def _messages(reader: asyncio.StreamReader) -> AsyncGenerator[tuple[bytes, bytes]]:
    """Kind and bytes of each message, until the other side is gone."""
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            head = await reader.readexactly(5)
            (length,) = struct.unpack("!i", head[1:])
            yield head[:1], head + await reader.readexactly(length - 4)
