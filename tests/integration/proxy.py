"""A TCP proxy on loopback that can cut and stall the connections that go through it."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self


class Proxy:
    """`async with Proxy("nats://127.0.0.1:4222") as proxy`; clients connect to `proxy.url`."""

    def __init__(self, target: str) -> None:
        self._host, _, port = target.removeprefix("nats://").rpartition(":")
        self._port = int(port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Ends every connection, without a goodbye."""
        for writer in self._writers:
            writer.transport.abort()

    def stall(self) -> None:
        """Lets nothing through, in either direction."""
        self._open.clear()

    def flow(self) -> None:
        """Ends the stall."""
        self._open.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        pumps = {
            asyncio.create_task(self._pump(reader, far_writer)),
            asyncio.create_task(self._pump(far_reader, writer)),
        }
        self._tasks |= pumps
        await asyncio.wait(pumps)
        self._writers -= {writer, far_writer}
        self._tasks -= pumps

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()
