"""A client that speaks the NATS protocol by hand: subjects, replies and headers of any bytes."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

_CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"raw"}\r\n'


class RawClient:
    """`async with raw_client(url) as raw`. Nothing is checked before it is sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def publish(
        self, subject: bytes, data: bytes = b"", *, reply: bytes = b"", headers: bytes | None = None
    ) -> None:
        """`headers`: the whole block, its first line and its empty last one included or not."""
        target = subject + (b" " + reply if reply else b"")
        if headers is None:
            line, body = b"PUB %s %d" % (target, len(data)), data
        else:
            line = b"HPUB %s %d %d" % (target, len(headers), len(headers) + len(data))
            body = headers + data
        self._writer.write(line + b"\r\n" + body + b"\r\n")

    async def flush(self) -> list[bytes]:
        """The `-ERR` lines that came until the broker had read everything; `EOF` if it hung up."""
        said: list[bytes] = []
        with contextlib.suppress(ConnectionError):
            self._writer.write(b"PING\r\n")
            await self._writer.drain()
            while line := await self._reader.readline():
                if line.startswith(b"PONG"):
                    return said
                if line.startswith(b"PING"):
                    self._writer.write(b"PONG\r\n")
                if line.startswith(b"-ERR"):
                    said.append(line.strip())
        return [*said, b"EOF"]


@contextlib.asynccontextmanager
async def raw_client(url: str) -> AsyncGenerator[RawClient]:
    """Connected, without credentials."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        await reader.readline()  # INFO
        writer.write(_CONNECT)
        raw = RawClient(reader, writer)
        await raw.flush()
        yield raw
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
