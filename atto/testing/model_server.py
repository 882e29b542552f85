"""A server of raw HTTP/1.1 on loopback: each reply is written exactly as a test says, byte for byte."""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self, TypeAlias


class Cut:
    """A step of a reply: the connection is reset here."""


CUT: Final = Cut()

Step: TypeAlias = bytes | asyncio.Event | asyncio.Barrier | Cut
"""What a reply is made of: bytes (one HTTP chunk each), events and barriers (waited for), and `CUT`."""


@dataclass
class Reply:
    """A reply, step by step. Not `ended`: the connection closes before the last HTTP chunk."""

    steps: tuple[Step, ...]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    ended: bool = True

    @classmethod
    def of(
        cls,
        *steps: Step,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        content_type: str = "text/event-stream",
        ended: bool = True,
    ) -> Self:
        """A reply of these steps; a stream of events, if nothing else is said."""
        return cls(steps, status, {"content-type": content_type, **(headers or {})}, ended)


@dataclass
class Request:
    """What a client sent: names of headers in lower case, the body as JSON."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class ModelServer:
    """Serves while the block lasts, at `url`, `http://127.0.0.1:PORT`.

    Replies go out in the order in which they were added; when none is left, `respond` makes one of the
    request, else `default` serves. `requests`: all so far. `connections`: how many were ever made, `open`:
    how many are now. `arrived` and `gone` are set when a request came, and when a connection ended.
    """

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.default: Reply | None = None
        self.respond: Callable[[Request], Reply] | None = None
        self.connections = 0
        self.open = 0
        self.arrived = asyncio.Event()
        self.gone = asyncio.Event()
        self._replies: deque[Reply] = deque()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=1000)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        writers = [*self._writers]  # also of those whose task was cancelled before it began
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        await self._server.wait_closed()

    def reply(
        self,
        *steps: Step,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        content_type: str = "text/event-stream",
        ended: bool = True,
    ) -> None:
        """Adds a reply."""
        self._replies.append(
            Reply.of(*steps, status=status, headers=headers, content_type=content_type, ended=ended)
        )

    def refuse(self, status: int, body: Any, **headers: str) -> None:
        """Adds a reply of one JSON document. `headers`: with `_` where HTTP has `-`."""
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.reply(json.dumps(body).encode(), status=status, headers=names, content_type="application/json")

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio would log the cancellation of a task that it made itself
        task = asyncio.get_running_loop().create_task(self._accept(reader, writer))
        self._tasks.add(task)
        self._writers.add(writer)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        try:
            while (request := await _read(reader)) is not None:
                self.requests.append(request)
                self.arrived.set()
                if not await _play(self._next(request), reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            self.gone.set()
            self._writers.discard(writer)
            writer.close()

    def _next(self, request: Request) -> Reply:
        if self._replies:
            return self._replies.popleft()
        if self.respond is not None:
            return self.respond(request)
        if self.default is not None:
            return self.default
        return Reply.of(b"the test has no reply for this request", status=418, content_type="text/plain")


async def _read(reader: asyncio.StreamReader) -> Request | None:
    line = await reader.readline()
    if not line:
        return None
    headers: dict[str, str] = {}
    while (text := (await reader.readline()).decode().strip()) != "":
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(line.decode().split()[1], headers, json.loads(body or b"{}"))


async def _play(reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether the connection can serve again."""
    head = f"HTTP/1.1 {reply.status} x\r\ntransfer-encoding: chunked\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
    writer.write(head.encode() + b"\r\n")
    for step in reply.steps:
        match step:
            case Cut():
                await writer.drain()
                writer.transport.abort()
                return False
            case bytes():
                writer.write(b"%x\r\n%b\r\n" % (len(step), step))
                await writer.drain()
            case _:
                if not await _wait(step, reader):
                    return False
    if not reply.ended:
        return False
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


async def _wait(event: asyncio.Event | asyncio.Barrier, reader: asyncio.StreamReader) -> bool:
    """False if the client hung up first."""
    hung_up = asyncio.ensure_future(reader.read(1))
    told = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait({hung_up, told}, return_when=asyncio.FIRST_COMPLETED)
        return not hung_up.done()
    finally:
        hung_up.cancel()
        told.cancel()
        await asyncio.gather(hung_up, told, return_exceptions=True)
