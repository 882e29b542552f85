"""One worker process: `python -m tests.chaos.worker_process DIRECTORY NAME URL`.

Its model needs nothing outside and its tools leave a line for every effect. Commands come on standard input,
a line each:

    arm POINT, pause POINT      kill, or pause, yourself there
    block SECONDS               the next tool call blocks the event loop
    raise KIND                  the next tool call raises that, one of `RAISED`
    raise_in_model KIND         the next model call likewise
    hold SECONDS                all model calls say nothing for so long
    stubborn SECONDS            the next tool call does not heed its cancellation for so long
    skew SECONDS                the clock is wrong by so much

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
from typing import NoReturn

from atto import Agent, ToolContext, tool
from atto.models import Chunk, FinishChunk, ModelRequest, TextChunk, ToolCallChunk
from atto.protocol.errors import ModelError
from atto.protocol.messages import Origin
from atto_workers import ModelPolicy, RetryPolicy, Topology, Worker
from tests.chaos.fail_points import FailPoints, count_fencing
from tests.chaos.mutants import MUTANTS
from tests.chaos.plan import load_plan
from tests.chaos.records import Effect, Raised, Recorder, now, session_directory
from tests.chaos.turns import AT_MOST_ONCE, read_script

TRANSIENT_FAILURES = 10  # per cent of the first tries of model calls
PID = os.getpid()


class Panic(BaseException):
    """As extensions written in Rust raise it."""


RAISED = {
    "exit": lambda: SystemExit(3),
    "panic": lambda: Panic("called `Option::unwrap()` on a `None` value"),
    "group": lambda: BaseExceptionGroup("several", [Panic("one"), ValueError("two")]),
    "cancelled": asyncio.CancelledError,
    "interrupt": KeyboardInterrupt,
    "generator_exit": GeneratorExit,
    "stop": lambda: StopAsyncIteration("no more"),
    "recursion": lambda: RecursionError("too deep"),
    "memory": MemoryError,
}
"""What users' code may raise."""


class Moods:
    """What the parent told this process to do next; `points` where."""

    def __init__(self, points: FailPoints) -> None:
        self.points = points
        self.block = 0.0
        self.stubborn = 0.0
        self.raises = ""
        self.model_raises = ""
        self.held_until = 0.0
        self._skew = 0.0
        self._time, self._time_ns = time.time, time.time_ns

    def obey(self, command: str, argument: str) -> None:
        match command:
            case "arm" | "pause":
                self.points.arm(argument, is_pause=command == "pause")
            case "block":
                self.block = float(argument)
            case "stubborn":
                self.stubborn = float(argument)
            case "raise":
                self.raises = argument
            case "raise_in_model":
                self.model_raises = argument
            case "hold":
                self.held_until = now() + float(argument)
            case "skew":
                self._set_clock(float(argument))
            case _:
                raise ValueError(command)

    def _set_clock(self, skew: float) -> None:
        """What the product asks in Python; the event loop's own clock is monotonic."""
        time.time = lambda: self._time() + skew
        time.time_ns = lambda: self._time_ns() + int(skew * 1e9)


def told(word: str) -> None:
    """A word to the parent."""
    print(word, flush=True)  # noqa: T201


class ChaosModel:
    """Answers as the turn's script says. No two calls say the same, so that a mix of two would be seen; the
    words begin with the process's id.
    """

    origin = Origin("chaos", "chaos")

    def __init__(self, directory: Path, moods: Moods) -> None:
        self._directory = directory
        self._moods = moods
        self._calls = itertools.count()
        self._tries: dict[tuple[str, int], int] = {}

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Chunk, None]:
        user = max(at for at, message in enumerate(request.messages) if message.role == "user")
        script = read_script(request.messages[user].text)
        step = sum(message.role == "assistant" for message in request.messages[user:])
        breaks = self._breaks(script.label, step)
        nonce = f"{PID}.{next(self._calls)}"
        await asyncio.sleep(max(0.0, self._moods.held_until - now()))
        if script.fails and step == len(script.steps):
            raise ModelError("the provider says no")
        for number in range(script.chunks):
            self._moods.points.pass_("in_model_stream")
            if breaks and number == script.chunks // 2:
                raise ModelError("the provider is busy", transient=True)
            if self._moods.model_raises:
                self._raise(script.label, request.cache_key)
            yield TextChunk(f"{nonce}.{number} ")
            await asyncio.sleep(script.pause / 1000)
        tools = script.steps[step] if step < len(script.steps) else ()
        for slot, name in enumerate(tools):
            call = f"{nonce}.{slot}"
            arguments = f'{{"nonce": "{call}", "work": {script.work}}}'
            yield ToolCallChunk(slot, id=call, name=name, arguments=arguments)
        yield FinishChunk("tool_calls" if tools else "stop")

    def _breaks(self, label: str, step: int) -> bool:
        """The first two tries may fail, by a hash of the turn, the step and the try."""
        attempt = self._tries.pop((label, step), 0)
        breaks = attempt < 2 and zlib.crc32(f"{label}/{step}/{attempt}".encode()) % 100 < TRANSIENT_FAILURES
        if breaks:
            self._tries[label, step] = attempt + 1
        return breaks

    def _raise(self, label: str, session: str) -> NoReturn:
        kind, self._moods.model_raises = self._moods.model_raises, ""
        recorder = Recorder(session_directory(self._directory, session) / "effects.jsonl")
        recorder.add_now(Raised(t=now(), label=label, error=kind))
        recorder.close()
        told("raised")
        raise RAISED[kind]()  # noqa: RSE102 - some are functions


class Effects:
    """What tools do to the world: a line each, under their session."""

    def __init__(self, directory: Path, moods: Moods) -> None:
        self._directory = directory
        self._moods = moods

    async def take(self, name: str, nonce: str, work: int, context: ToolContext) -> None:
        began, raises = now(), ""
        if name not in AT_MOST_ONCE:  # those have their effect first of all
            await asyncio.sleep(work / 1000)
        if self._moods.block:
            seconds, self._moods.block = self._moods.block, 0.0
            told("blocked")
            time.sleep(seconds)
        if self._moods.raises:
            raises, self._moods.raises = self._moods.raises, ""
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
                tool=name,
                raised=raises,
            )
        )
        recorder.close()
        self._moods.points.pass_("after_effect")
        if raises:
            told("raised")
            raise RAISED[raises]()  # noqa: RSE102 - likewise
        if self._moods.stubborn:
            until, self._moods.stubborn = now() + self._moods.stubborn, 0.0
            told("stubborn")
            await stay(until)


async def stay(until: float) -> None:
    """Whatever asks for its end."""
    while (left := until - now()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            continue


def make_agent(directory: Path, moods: Moods) -> Agent:
    effects = Effects(directory, moods)

    @tool
    async def note(nonce: str, work: int, context: ToolContext) -> str:
        """Leaves a trace."""
        await effects.take("note", nonce, work, context)
        return nonce

    @tool(parallel=False)
    async def count(nonce: str, work: int, context: ToolContext) -> str:
        """Leaves a trace and adds one to the session's count."""
        await effects.take("count", nonce, work, context)
        context.state["count"] = context.state.get("count", 0) + 1
        context.state["last"] = nonce
        return f"{nonce} {context.state['count']}"

    @tool(read_only=True)
    async def look(nonce: str, work: int, context: ToolContext) -> str:
        """Says that it changes nothing, so nothing is confirmed before it; its calls leave a line."""
        await effects.take("look", nonce, work, context)
        return nonce

    @tool(at_most_once=True)
    async def charge(nonce: str, work: int, context: ToolContext) -> str:
        """Leaves a trace at once, and must not do so twice."""
        await effects.take("charge", nonce, work, context)
        return nonce

    return Agent(f"w{PID}", ChaosModel(directory, moods), tools=[note, count, look, charge])


async def obey(moods: Moods) -> None:
    """Reads commands until there will be no more."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    while line := await reader.readline():
        moods.obey(*line.decode().split())
    os._exit(3)


async def main(directory: str, name: str, url: str) -> None:
    plan = load_plan(directory)
    recorder = Recorder(Path(directory) / "workers" / f"{name}.jsonl")
    points = FailPoints(recorder)
    moods = Moods(points)
    count_fencing(recorder)
    points.install()
    if plan.mutant:
        MUTANTS[plan.mutant].breaks()
    obeying = asyncio.create_task(obey(moods))
    worker = Worker(
        make_agent(plan.path, moods),
        nats=url.split(","),
        store="nats-kv" if plan.store == "kv" else plan.store,
        topology=Topology(
            plan.namespace, partitions=plan.partitions, backlog=plan.backlog, replicas=plan.nodes
        ),
        grace=plan.grace,
        models=ModelPolicy(retries=RetryPolicy(base=0.02, budget=None), breaker=None),
    )
    await worker.serve(on_ready=lambda: told("ready"))
    obeying.cancel()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    asyncio.run(main(*sys.argv[1:]))
