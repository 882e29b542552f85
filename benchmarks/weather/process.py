"""One process under measurement: `python -m benchmarks.weather.process OPTIONS`, which are JSON of `Options`.

Takes commands as JSON lines from standard input, and answers each with a line. Ends with its input. Runs on
uvloop, as the floor does.
"""

import asyncio
import ctypes
import gc
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import uvloop

from atto_workers.collector import collect_less_often
from benchmarks.weather import floor
from benchmarks.weather.atto_side import AttoCaller, worker
from benchmarks.weather.caller import Load
from benchmarks.weather.floor import FloorCaller
from benchmarks.weather.plain import PlainCaller
from benchmarks.weather.work import AT_ONCE, PACED, Pace

Answer = Callable[[dict[str, Any]], Awaitable[Any]]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a process is told at its start. `contender`: atto, floor or plain, whose caller has its worker
    with it. `idle_limit`: seconds after which an idle session leaves a worker's memory. `effects`: the tool
    changes something, so that its call is confirmed by the broker before it runs.
    """

    role: str
    contender: str
    url: str
    namespace: str
    store: str = "nats-kv"
    paced: bool = False
    idle_limit: float | None = None
    effects: bool = False

    @property
    def pace(self) -> Pace:
        return PACED if self.paced else AT_ONCE


async def serve(options: Options, answer: Answer) -> None:
    """Says that it is ready, and for what; then answers until the input ends."""
    reader = asyncio.StreamReader(limit=64 << 20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(0, "rb", buffering=0)
    )
    _say({"ready": os.getpid(), "effects": options.effects})
    while line := await reader.readline():
        _say(await answer(msgspec.json.decode(line)))


def _say(answer: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


async def run_worker(options: Options) -> None:
    opened: AbstractAsyncContextManager[object]
    if options.contender == "floor":
        opened = floor.worker(options.url, options.namespace, options.pace)
    else:
        opened = worker(
            options.url,
            options.namespace,
            options.store,
            options.pace,
            idle_limit=options.idle_limit,
            effects=options.effects,
        )
    async with opened:
        collect_less_often()  # as `Worker.serve` does; the floor shall have it, too
        await serve(options, _settle)


async def _settle(_command: dict[str, Any]) -> Any:
    """Gives back what can be given back, and tells the bytes that are left."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: ASYNC230, PTH123 - it is no disk
        return {"resident": int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")}


async def run_caller(options: Options) -> None:
    match options.contender:
        case "floor":
            caller = FloorCaller(options.url, options.namespace)
        case "plain":
            caller = PlainCaller(options.url, options.namespace, options.pace)
        case _:
            caller = AttoCaller(options.url, options.namespace)
    async with caller:
        load = Load(caller)

        async def answer(command: dict[str, Any]) -> Any:
            match command:
                case {"loop": int(concurrency), "seconds": seconds}:
                    return await load.closed_loop(concurrency, seconds)
                case {"burst": list(sessions)}:
                    return await load.burst(sessions)
                case {"session": str(session), "turns": int(turns)}:
                    return await load.sequence(session, turns)
                case {"sessions": int(count)}:
                    return load.new_sessions(count)
                case {"fill": int(count), "turns": int(turns), "concurrency": int(concurrency)}:
                    return await load.fill(count, turns, concurrency)
                case _:
                    return load.ledger

        await serve(options, answer)


def main() -> None:
    options = msgspec.json.decode(sys.argv[1], type=Options)
    run = run_worker if options.role == "worker" else run_caller
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run(options))


if __name__ == "__main__":
    main()
