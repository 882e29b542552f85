"""A TCP proxy on loopback that can cut, stall and deafen the connections that go through it."""

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
        self._audible = asyncio.Event()
        self._audible.set()
        self._marker = b""
        self._cuts_before = False
        self._marked = asyncio.Event()

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

    def deafen(self) -> None:
        """Lets nothing through to the clients; what they say gets through."""
        self._audible.clear()

    def flow(self) -> None:
        """Ends the stall."""
        self._open.set()
        self._audible.set()

    async def cut_at(self, marker: bytes, *, before: bool) -> None:
        """Cuts every connection once a client says `marker`, before it gets through or right after it.

        Returns when that has been done. Cancelled, it is not done any more.
        """
        self._marker, self._cuts_before = marker, before
        self._marked.clear()
        try:
            await self._marked.wait()
        finally:
            self._marker = b""

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        pumps = {
            asyncio.create_task(self._speak(reader, far_writer)),
            asyncio.create_task(self._pump(far_reader, writer, self._audible)),
        }
        self._tasks |= pumps
        await asyncio.wait(pumps)
        self._writers -= {writer, far_writer}
        self._tasks -= pumps

    async def _speak(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._open.wait()
                is_marked = bool(self._marker) and self._marker in data
                if is_marked and self._cuts_before:
                    data = data[: data.index(self._marker)]
                writer.write(data)
                await writer.drain()
                if is_marked:
                    self._marker = b""
                    self.cut() if self._cuts_before else await self._close_gently()
                    self._marked.set()
        writer.transport.abort()

    async def _close_gently(self) -> None:
        """So that what was written gets through."""
        for writer in list(self._writers):
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, audible: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._open.wait()
                await audible.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


class HushingProxy(Proxy):
    """One that can keep all messages from the clients, while pings of the protocol go through."""

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._hushed: set[asyncio.StreamWriter] = set()

    def hush(self) -> None:
        """Of the connections that there are now; later ones hear everything."""
        self._hushed = set(self._writers)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, audible: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                body = b""
                if line.startswith((b"MSG ", b"HMSG ")):
                    body = await reader.readexactly(int(line.split()[-1]) + 2)
                await self._open.wait()
                await audible.wait()
                if body and writer in self._hushed:
                    continue
                writer.write(line + body)
                await writer.drain()
        writer.transport.abort()
