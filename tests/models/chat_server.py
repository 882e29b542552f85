"""A server of raw HTTP/1.1 on loopback: each reply is written exactly as the test says, byte for byte."""

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any

CUT = object()
"""A step of a reply: the connection is reset here."""

DONE = b"data: [DONE]\n\n"


@dataclass
class Reply:
    """`steps`: bytes (one HTTP chunk each), events and barriers (waited for), or `CUT`."""

    steps: tuple[bytes | asyncio.Event | object, ...]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    ended: bool = True


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class ChatServer:
    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.default: Reply | None = None
        self.connections = 0
        self.open = 0
        self.arrived = asyncio.Event()
        self.gone = asyncio.Event()
        self._replies: deque[Reply] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def reply(self, *steps, status=200, headers=None, content_type="text/event-stream", ended=True) -> None:
        self._replies.append(Reply(steps, status, {"content-type": content_type, **(headers or {})}, ended))

    def refuse(self, status, body, **headers) -> None:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.reply(json.dumps(body).encode(), status=status, headers=names, content_type="application/json")

    async def _accept(self, reader, writer) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        self.connections += 1
        self.open += 1
        try:
            while (request := await self._read(reader)) is not None:
                self.requests.append(request)
                self.arrived.set()
                reply = self._replies.popleft() if self._replies else self.default
                if not await self._play(reply, reader, writer):
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            self.gone.set()
            writer.close()
            self._tasks.discard(task)

    async def _read(self, reader) -> Request | None:
        line = await reader.readline()
        if not line:
            return None
        headers = {}
        while (field_line := (await reader.readline()).decode().strip()) != "":
            name, _, value = field_line.partition(":")
            headers[name.lower()] = value.strip()
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Request(line.decode().split()[1], headers, json.loads(body))

    async def _play(self, reply, reader, writer) -> bool:
        head = f"HTTP/1.1 {reply.status} x\r\ntransfer-encoding: chunked\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items())
        writer.write(head.encode() + b"\r\n")
        for step in reply.steps:
            if step is CUT:
                await writer.drain()
                writer.transport.abort()
                return False
            if isinstance(step, asyncio.Event | asyncio.Barrier):
                if not await _wait(step, reader):
                    return False
            else:
                writer.write(b"%x\r\n%b\r\n" % (len(step), step))
                await writer.drain()
        if not reply.ended:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


async def _wait(event, reader) -> bool:
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


def sse(*payloads) -> bytes:
    return b"".join(
        b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n" for payload in payloads
    )


def delta(**fields) -> dict[str, Any]:
    choice = {"index": 0, "delta": fields, "finish_reason": None}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def finish(reason="stop", **extra) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], **extra}


def calls(*pieces) -> dict[str, Any]:
    return delta(tool_calls=list(pieces))


def piece(index=None, call_id=None, name=None, arguments=None) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    fields = {
        "index": index,
        "id": call_id,
        "type": "function",
        "function": {key: value for key, value in function.items() if value is not None},
    }
    return {key: value for key, value in fields.items() if value is not None}


def answer(text: str) -> bytes:
    return (
        sse(delta(role="assistant", content=""), *(delta(content=word) for word in text.split(" ")), finish())
        + DONE
    )
