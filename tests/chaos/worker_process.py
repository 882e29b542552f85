"""One worker process: `python -m tests.chaos.worker_process DIRECTORY NAME URL`.

Its model needs nothing outside and its tools leave a line for every effect. Commands come on standard input,
a line each: `arm POINT` (kill yourself there), `block SECONDS` (the next tool call blocks the event loop).
When standard input ends, the process does too: whoever ran the chaos is gone.
"""

import asyncio
import itertools
import logging
import os
import sys
import time
import zlib
from collections.abc import AsyncGenerator
from pathlib import Path

from atto import Agent, ToolContext, tool
from atto.models import Chunk, FinishChunk, ModelRequest, TextChunk, ToolCallChunk
from atto.protocol.errors import ModelError
from atto.protocol.messages import Origin
from atto_workers import ModelPolicy, RetryPolicy, Topology, Worker
from tests.chaos.fail_points import FailPoints, count_fencing
from tests.chaos.mutants import MUTANTS
from tests.chaos.plan import load_plan
from tests.chaos.records import Effect, Recorder, now, session_directory
from tests.chaos.turns import read_script

TRANSIENT_FAILURES = 10  # per cent of the first tries of model calls
PID = os.getpid()


class ChaosModel:
    """Answers as the turn's script says. No two calls say the same, so that a mix of two would be seen; the
    words begin with the process's id.
    """

    origin = Origin("chaos", "chaos")

    def __init__(self, points: FailPoints) -> None:
        self._points = points
        self._calls = itertools.count()
        self._tries: dict[tuple[str, int], int] = {}

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Chunk, None]:
        user = max(at for at, message in enumerate(request.messages) if message.role == "user")
        script = read_script(request.messages[user].text)
        step = sum(message.role == "assistant" for message in request.messages[user:])
        breaks = self._breaks(script.label, step)
        nonce = f"{PID}.{next(self._calls)}"
        await asyncio.sleep(0)
        if script.fails:
            raise ModelError("the provider says no")
        for number in range(script.chunks):
            self._points.pass_("in_model_stream")
            if breaks and number == script.chunks // 2:
                raise ModelError("the provider is busy", transient=True)
            yield TextChunk(f"{nonce}.{number} ")
            await asyncio.sleep(script.pause / 1000)
        tools = script.steps[step] if step < len(script.steps) else ()
        for slot, name in enumerate(tools):
            call = f"{nonce}.{slot}"
            yield ToolCallChunk(slot, id=call, name=name, arguments=f'{{"nonce": "{call}"}}')
        yield FinishChunk("tool_calls" if tools else "stop")

    def _breaks(self, label: str, step: int) -> bool:
        """The first two tries may fail, by a hash of the turn, the step and the try."""
        attempt = self._tries.pop((label, step), 0)
        breaks = attempt < 2 and zlib.crc32(f"{label}/{step}/{attempt}".encode()) % 100 < TRANSIENT_FAILURES
        if breaks:
            self._tries[label, step] = attempt + 1
        return breaks


class Effects:
    """What tools do to the world: a line each, under their session."""

    def __init__(self, directory: Path, points: FailPoints) -> None:
        self.block = 0.0
        self._directory = directory
        self._points = points

    async def take(self, nonce: str, context: ToolContext) -> None:
        began = now()
        await asyncio.sleep(0.001)
        if self.block:
            seconds, self.block = self.block, 0.0
            print("blocked", flush=True)  # noqa: T201 - to the parent
            time.sleep(seconds)
        recorder = Recorder(session_directory(self._directory, context.session) / "effects.jsonl")
        recorder.add_now(
            Effect(
                t=began,
                until=now(),
                pid=PID,
                key=context.idempotency_key,
                run=context.run_id,
                step=context.step,
                call=context.call_id,
                nonce=nonce,
            )
        )
        recorder.close()
        self._points.pass_("after_effect")


def make_agent(effects: Effects, points: FailPoints) -> Agent:
    @tool
    async def note(nonce: str, context: ToolContext) -> str:
        """Leaves a trace."""
        await effects.take(nonce, context)
        return nonce

    @tool(parallel=False)
    async def count(nonce: str, context: ToolContext) -> str:
        """Leaves a trace and adds one to the session's count."""
        await effects.take(nonce, context)
        context.state["count"] = context.state.get("count", 0) + 1
        context.state["last"] = nonce
        return f"{nonce} {context.state['count']}"

    @tool(read_only=True)
    async def look(nonce: str, context: ToolContext) -> str:
        """Says that it changes nothing, so nothing is confirmed before it; its calls leave a line."""
        await effects.take(nonce, context)
        return nonce

    return Agent(f"w{PID}", ChaosModel(points), tools=[note, count, look])


async def obey(points: FailPoints, effects: Effects) -> None:
    """Reads commands until there will be no more."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    while line := await reader.readline():
        command, argument = line.decode().split()
        if command == "arm":
            points.arm(argument)
        elif command == "block":
            effects.block = float(argument)
    os._exit(3)


async def main(directory: str, name: str, url: str) -> None:
    plan = load_plan(directory)
    recorder = Recorder(Path(directory) / "workers" / f"{name}.jsonl")
    points = FailPoints(recorder)
    effects = Effects(plan.path, points)
    count_fencing(recorder)
    points.install()
    if plan.mutant:
        MUTANTS[plan.mutant]()
    obeying = asyncio.create_task(obey(points, effects))
    worker = Worker(
        make_agent(effects, points),
        nats=url,
        store="nats-kv" if plan.store == "kv" else plan.store,
        topology=Topology(plan.namespace, partitions=plan.partitions, backlog=plan.backlog),
        grace=10.0,
        models=ModelPolicy(retries=RetryPolicy(base=0.02, budget=None), breaker=None),
    )
    await worker.serve(on_ready=lambda: print("ready", flush=True))  # noqa: T201 - to the parent
    obeying.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(main(*sys.argv[1:]))
