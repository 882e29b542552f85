"""`atto worker --processes N`: worker processes, and the parent that keeps them."""

import asyncio
import logging
import os
import signal
from typing import Literal

from atto_workers.cli.health import health_answered
from atto_workers.cli.process import WorkerProcess
from atto_workers.cli.worker import WorkerSettings

PAUSES = (1.0, 30.0)
"""Seconds before a process that died is started again: at first, and at most; it doubles in between."""
SOUND = 60.0
"""Seconds after which a process counts as one that works, and the pauses begin anew."""

_log = logging.getLogger("atto.worker")


async def serve_fleet(
    settings: WorkerSettings, processes: int, health_port: int | None, health_host: str
) -> int:
    """Runs until SIGTERM or SIGINT, then drains all processes; the exit code.

    A second signal kills them, and ends this process with 128 + its number.
    """
    fleet = Fleet(settings, processes)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, fleet.signalled, number)
    try:
        async with health_answered(health_host, health_port, fleet.unready, alive=fleet.unhealthy):
            return await fleet.serve()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


class Fleet:
    """`processes` workers, each made by `settings`. One that dies is started again, after a pause."""

    def __init__(self, settings: WorkerSettings, processes: int) -> None:
        self._settings = settings
        self._slots: list[WorkerProcess | None] = [None] * processes
        self._stop = asyncio.Event()
        self._first_took_turns = asyncio.Event()
        self._code = 0

    def signalled(self, number: int) -> None:
        """The first signal drains, the second kills."""
        if self._stop.is_set():
            for process in self._slots:
                if process is not None:
                    process.kill()
            os._exit(128 + number)
        _log.info("%d worker processes drain", len(self._slots))
        self._drain()

    async def serve(self) -> int:
        """Returns when all processes have ended: 0 if they drained, else the code of one that did not.

        What ends with a code of its own before it ever took a turn, at the first attempt, would do so again
        (no such agent, no broker): then all end with that code. The others start once the first takes turns,
        so that it is told once.
        """
        async with asyncio.TaskGroup() as tasks:
            for slot in range(len(self._slots)):
                tasks.create_task(self._keep(slot), name=f"worker process {slot}")
        return self._code

    async def unready(self) -> str | None:
        """As of `Worker.unready`, for all."""
        return await self._ask("ready")

    async def unhealthy(self) -> str | None:
        """Which process does not answer; one that is about to be started again is no matter of concern."""
        return await self._ask("alive")

    async def _ask(self, question: Literal["ready", "alive"]) -> str | None:
        there = [process for process in self._slots if process is not None]
        if question == "ready" and len(there) < len(self._slots):
            return f"{len(there)} of {len(self._slots)} processes run"
        async with asyncio.TaskGroup() as tasks:
            # Before it is ready it may import for long: that is no illness.
            asked = [
                tasks.create_task(process.ask(question))
                for process in there
                if question == "ready" or process.was_ready
            ]
        problems = [task.result() for task in asked]
        return next((problem for problem in problems if problem is not None), None)

    async def _keep(self, slot: int) -> None:
        loop = asyncio.get_running_loop()
        pause, is_first = PAUSES[0], True
        if slot != 0:
            await self._first_took_turns.wait()
        while not self._stop.is_set():
            began = loop.time()
            process = self._slots[slot] = await WorkerProcess.start(self._settings)
            if self._stop.is_set():
                process.terminate()
            if await process.ready():
                self._first_took_turns.set()
            code = await process.ended()
            self._slots[slot] = None
            if self._stop.is_set():
                self._drained(process, code)
                return
            if is_first and code > 0 and not process.was_ready:
                self._code = code
                self._drain()
                return
            is_first = False
            pause = PAUSES[0] if loop.time() - began > SOUND else pause
            how = f"signal {-code}" if code < 0 else f"code {code}"
            _log.warning("worker process %d ended with %s: again in %g s", process.pid, how, pause)
            await self._stopped_within(pause)
            pause = min(2 * pause, PAUSES[1])

    def _drain(self) -> None:
        self._stop.set()
        self._first_took_turns.set()
        for process in self._slots:
            if process is not None:
                process.terminate()

    def _drained(self, process: WorkerProcess, code: int) -> None:
        if code and (process.was_ready or code > 0):  # a signal that came before the handlers is no failure
            _log.warning("worker process %d ended with %d instead of draining", process.pid, code)
            self._code = self._code or (128 - code if code < 0 else code)

    async def _stopped_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            pass
