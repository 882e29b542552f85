"""atto as a driver of the peers' harness, `drivers/atto.py` there. `benchmarks/peers/run.sh` puts it there.

kv: sessions in the broker's key-value store   pg: in Postgres, which syncs every commit
The caller is the harness's process; worker and broker are children. The turn, its events, its history cross
the broker, with file storage. The worker runs on uvloop, as atto's command line does.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import work  # the harness's: the words, and the pace

from atto import Agent, tool
from atto.broker.server import EmbeddedBroker
from atto.models import Chunk, FinishChunk, ModelRequest, PartDone, TextChunk, ToolCallChunk
from atto.protocol.messages import Message, Origin, ToolCallPart, ToolResultPart
from atto_client import Client, events
from atto_workers import Worker
from atto_workers.collector import collect_less_often
from atto_workers.gateway import LimitPolicy, ModelPolicy

VERSIONS = ["atto-agents", "nats-py", "msgspec", "uvloop"]
STORES = ["kv", "pg"]
VENV = "atto"

_NAMESPACE = "peers"
_CONCURRENCY = 1024


class Driver:
    """What the harness asks of one."""

    def __init__(self, store: str, env: Any) -> None:
        self._store = "nats-kv" if store == "kv" else env.pg_url
        self._broker = EmbeddedBroker(Path(env.dir) / "broker")
        self._stack = contextlib.AsyncExitStack()
        self._mode = work.MODE
        self._told = asyncio.Lock()

    async def start(self) -> None:
        await self._stack.enter_async_context(self._broker)
        self._worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from drivers import atto; atto.main()", self._broker.url, self._store),
            cwd=Path(work.__file__).parent,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        await self._heard()
        self._client = await self._stack.enter_async_context(Client(self._broker.url, namespace=_NAMESPACE))

    def pids(self) -> list[int]:
        """Whose CPU is counted besides the harness's."""
        return [self._worker.pid, self._broker.pid]

    def io_bytes(self) -> int:
        """What the broker has written to disk; of Postgres the harness knows itself."""
        text = Path(f"/proc/{self._broker.pid}/io").read_text()
        return int(next(line for line in text.splitlines() if line.startswith("write_bytes")).split()[1])

    async def turn(self, sid: str, text: str, on_delta: Callable[[str], None]) -> str:
        """One turn, from its submission to its terminal event, which comes after the commit."""
        if self._mode != work.MODE:
            await self._tell_mode()
        async for event in self._client.run(sid, text):
            match event:
                case events.TextDelta():
                    on_delta(event.text)
                case events.RunCompleted():
                    return event.text
                case events.RunFailed() | events.RunCancelled():
                    raise RuntimeError(str(event))
                case _:
                    pass
        raise RuntimeError("no terminal event")

    async def history(self, sid: str) -> list[tuple[str, str]]:
        """As the worker reads it from the store."""
        snapshot = await self._client.snapshot(sid)
        return [_entry(message) for message in snapshot.messages]

    async def close(self) -> None:
        if self._worker.stdin is not None:
            self._worker.stdin.close()
        await self._worker.wait()
        await self._stack.aclose()

    async def _tell_mode(self) -> None:
        """The model speaks in the worker: it must know the pace."""
        async with self._told:
            if self._mode != work.MODE and self._worker.stdin is not None:
                self._worker.stdin.write(f"{work.MODE}\n".encode())
                await self._heard()
                self._mode = work.MODE

    async def _heard(self) -> None:
        if self._worker.stdout is not None and not await self._worker.stdout.readline():
            raise RuntimeError("the worker ended")


def _entry(message: Message) -> tuple[str, str]:
    match message.content:
        case (ToolCallPart(arguments=arguments),):
            return "call", str(arguments["city"])
        case (ToolResultPart(content=content),):
            return "tool", str(content)
        case _:
            return message.role, message.text


class Model:
    """The harness's fake model."""

    origin = Origin("fake", "weather")

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Chunk, None]:
        messages = request.messages
        if messages[-1].role == "user":
            _, turn = work.check_seen(messages[-1].text, len(messages), 1)
            await work.first_token()
            yield ToolCallChunk(0, f"c{len(messages)}", "get_weather", f'{{"city": "{work.city_of(turn)}"}}')
            yield PartDone(None, 0)
            yield FinishChunk("tool_calls")
            return
        sid, turn = work.check_seen(messages[-3].text, len(messages), 2)
        await work.first_token()
        for delta in work.deltas_of(sid, turn):
            await work.next_delta()
            yield TextChunk(delta)
        yield FinishChunk("stop")


@tool(read_only=True)
async def get_weather(city: str) -> str:
    """Return the weather in a city."""
    return await work.get_weather(city)


async def _serve(url: str, store: str) -> None:
    agent = Agent("weather", Model(), instruction=work.SYSTEM, tools=[get_weather])
    models = ModelPolicy(limits=LimitPolicy(concurrency=_CONCURRENCY))
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb", buffering=0)
    )
    options: dict[str, Any] = {"concurrency": _CONCURRENCY, "models": models, "grace": 2.0}
    async with Worker(agent, nats=url, namespace=_NAMESPACE, store=store, **options):
        collect_less_often()  # as `Worker.serve` does
        print("ready", flush=True)
        while line := await reader.readline():
            work.set_mode(line.decode().strip())
            print("heard", flush=True)


def main() -> None:
    """The worker process."""
    import uvloop  # noqa: PLC0415 - the worker's

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(sys.argv[1], sys.argv[2]))
