"""A relay on the way to a server, which counts round trips."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

_CHUNK = 1 << 16


class Relay:
    """`round_trips`: how often a client went on to ask after it had been answered, or began to ask."""

    def __init__(self, port: int) -> None:
        self.round_trips = 0
        self.port = 0
        self._target = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, until either side ends it."""
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
        turn = _Turn()
        with contextlib.closing(writer), contextlib.closing(server_writer):
            await asyncio.gather(
                self._ask(reader, server_writer, turn), self._answer(server_reader, writer, turn)
            )

    async def ended(self) -> None:
        """Returns when all clients have gone."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, turn: "_Turn") -> None:
        async for chunk in _chunks(reader):
            if not turn.asked:
                self.round_trips += 1
            turn.asked = True
            writer.write(chunk)
        writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, turn: "_Turn"
    ) -> None:
        async for chunk in _chunks(reader):
            turn.asked = False
            writer.write(chunk)
        writer.close()


class _Turn:
    """Whose turn it is on one connection: whether the server was asked since it last answered."""

    asked = False


async def _chunks(reader: asyncio.StreamReader) -> AsyncGenerator[bytes]:
    with contextlib.suppress(ConnectionError):  # an end like any other
        while chunk := await reader.read(_CHUNK):
            yield chunk


@contextlib.asynccontextmanager
async def relay_to(port: int) -> AsyncGenerator[Relay]:
    """Listens on `relay.port` of loopback for what the server at `port` is to get. Clients leave first."""
    relay = Relay(port)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.port = server.sockets[0].getsockname()[1]
    try:
        yield relay
    finally:
        server.close()
        await relay.ended()
