"""The processes under measurement, as the one that measures sees them."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from benchmarks.weather.process import Options

ROOT = Path(__file__).parent.parent.parent
"""Of this source tree."""

_T = TypeVar("_T")
_LINE = 64 << 20  # bytes: the latencies of a window, or a ledger
_STOPPING = 20.0


class ChildFailed(Exception):
    """A process under measurement ended in the middle of it; its own words stand on standard error."""


class Child:
    """A running `benchmarks.weather.process`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid

    async def ask(self, kind: type[_T], **command: Any) -> _T:
        """One command, one answer."""
        assert self.process.stdin is not None  # noqa: S101 - both are pipes
        self.process.stdin.write(msgspec.json.encode(command) + b"\n")
        return await self.answer(kind)

    async def answer(self, kind: type[_T]) -> _T:
        assert self.process.stdout is not None  # noqa: S101
        line = await self.process.stdout.readline()
        if not line:
            raise ChildFailed(f"process {self.pid} ended with status {await self.process.wait()}")
        return msgspec.json.decode(line, type=kind)

    async def kill(self) -> None:
        """SIGKILL."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        """The end of its input lets it leave in good order."""
        if self.process.returncode is None and self.process.stdin is not None:
            self.process.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOPPING):
                    await self.process.wait()
        await self.kill()


@contextlib.asynccontextmanager
async def child(options: Options, tree: Path = ROOT) -> AsyncGenerator[Child]:
    """One that is ready. `tree`: the root of the source tree whose code it runs."""
    python = tree / ".venv" / "bin" / "python"
    process = await asyncio.create_subprocess_exec(
        *(python if python.exists() else sys.executable, "-m", "benchmarks.weather.process"),
        msgspec.json.encode(options).decode(),
        cwd=tree,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE,
    )
    running = Child(process)
    try:
        ready = await running.answer(dict[str, Any])
        if ready.get("effects", False) != options.effects:
            raise ChildFailed(f"the benchmarks of {tree} have no tool with effects")
        yield running
    finally:
        await running.stop()
