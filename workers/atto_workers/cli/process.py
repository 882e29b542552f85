"""A worker in a process of its own, as its parent sees it: started, asked, told to drain, gone."""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from atto_workers.cli.worker import WorkerSettings

PATIENCE = 1.5
"""Seconds in which a worker process answers."""

_answers = msgspec.json.Decoder(tuple[int, str | None])


class WorkerProcess:
    """`await WorkerProcess.start(settings)`. It has a session of its own: a terminal's Ctrl-C passes it by.

    `on_line`: told of each line that it writes to stderr, which is the parent's otherwise.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, on_line: Callable[[str], None] | None = None
    ) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[str | None]] = {}
        self._ready = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.create_task(self._hear(), name="answers of a worker process")]
        if on_line is not None:
            self._tasks.append(asyncio.create_task(self._follow(on_line), name="log of a worker process"))

    @classmethod
    async def start(
        cls,
        settings: WorkerSettings,
        *,
        on_line: Callable[[str], None] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> "WorkerProcess":
        """Returns once the process is there; `ready` tells of the worker. `environment`: besides ours."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "atto_workers.cli.child"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=None if on_line is None else asyncio.subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
        )
        started = cls(process, on_line)
        started._tell(msgspec.json.encode(settings))
        return started

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def was_ready(self) -> bool:
        """Whether it ever took turns."""
        return self._ready.done() and self._ready.result()

    async def ready(self) -> bool:
        """Returns when turns are taken (True), or the process has ended before (False)."""
        return await asyncio.shield(self._ready)

    async def ended(self) -> int:
        """Returns when the process has ended and what it wrote was read: its code, as of `Popen`."""
        code = await self._process.wait()
        # Not for ever: what the agent's code has started may live on, and holds the pipe.
        _, unread = await asyncio.wait(self._tasks, timeout=PATIENCE)
        for task in unread:
            task.cancel()
        return code

    async def ask(self, question: Literal["ready", "alive"]) -> str | None:
        """What is wrong with it; None if nothing is."""
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._tell(f"{number} {question}".encode())
            async with asyncio.timeout(PATIENCE):
                return await answer
        except TimeoutError:
            return f"process {self.pid} does not answer within {PATIENCE:g} s"
        finally:
            del self._asked[number]

    def terminate(self) -> None:
        """It drains, and ends. No-op if it has ended."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """It ends there and then."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _tell(self, line: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it was asked for as a pipe
        self._process.stdin.write(line + b"\n")

    async def _hear(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - likewise
        try:
            async for line in self._process.stdout:
                number, problem = _answers.decode(line)
                if number == 0 and not self._ready.done():
                    self._ready.set_result(True)
                elif (asked := self._asked.get(number)) is not None and not asked.done():
                    asked.set_result(problem)
        finally:
            if not self._ready.done():
                self._ready.set_result(False)
            for asked in self._asked.values():
                if not asked.done():
                    asked.set_result("the process has ended")

    async def _follow(self, on_line: Callable[[str], None]) -> None:
        assert self._process.stderr is not None  # noqa: S101 - likewise
        async for line in self._process.stderr:
            on_line(line.decode(errors="replace").rstrip("\n"))
