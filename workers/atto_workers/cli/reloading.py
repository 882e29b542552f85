"""The worker of `atto dev`: a process of its own, which a changed file replaces by a new one.

A new process, rather than modules imported again, since nothing of the old code can be left in it; the turn
that runs meanwhile goes on in it after its last completed call, as after any hand-back.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from atto.protocol.errors import MissingExtra
from atto_workers.cli.process import WorkerProcess
from atto_workers.cli.worker import WorkerSettings

PAUSE = 1.0
"""Seconds before a worker that died is started again, or a broker that did so again."""


_WITHOUT_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1"}
"""What Python keeps of a file counts as the file's as long as its size and the second of its last change are
the same: two changes within a second could leave the first one running.
"""


class ReloadedWorker:
    """`settings` say what worker. `note` is told what happens, `on_line` what the worker writes."""

    def __init__(
        self,
        settings: WorkerSettings,
        directory: Path,
        note: Callable[[str], None],
        on_line: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._directory = directory
        self._note = note
        self._on_line = on_line
        self._process: WorkerProcess | None = None
        self._replacing = asyncio.Lock()
        self._watches: set[asyncio.Task[None]] = set()

    @property
    def is_there(self) -> bool:
        """Whether there is a worker that takes turns."""
        return self._process is not None

    async def start(self) -> bool:
        """A first worker; False if the agent cannot be loaded: a change may mend that."""
        return await self._replace()

    async def reload_on_change(self) -> None:
        """Runs until cancelled, or as long as changes can be noticed."""
        try:
            await self._reload_on_change()
        except (MissingExtra, OSError, RuntimeError) as error:
            self._note(f"changes are not noticed: {error}")

    async def _reload_on_change(self) -> None:
        try:
            import watchfiles  # noqa: PLC0415 - part of the extra `cli`
        except ModuleNotFoundError:
            raise MissingExtra("reloading is an extra: pip install 'atto-workers[cli]'") from None
        filtered = watchfiles.PythonFilter()
        async for _ in watchfiles.awatch(self._directory, watch_filter=filtered):
            had_one = self.is_there
            if await self._replace():
                self._note("reloaded")
            elif had_one:
                self._note("not reloaded: the agent stays as it was")

    async def stop(self) -> None:
        """Returns when the worker has drained and ended."""
        for watch in self._watches:
            watch.cancel()
        if self._watches:
            await asyncio.wait(self._watches)
        process, self._process = self._process, None
        if process is not None:
            await _ended(process)

    async def _replace(self) -> bool:
        """The old one drains only once the new one takes turns."""
        async with self._replacing:
            new = await WorkerProcess.start(
                self._settings, on_line=self._on_line, environment=_WITHOUT_BYTECODE
            )
            try:
                is_ready = await new.ready()
            except asyncio.CancelledError:
                await _ended(new)
                raise
            if not is_ready:
                await new.ended()
                return False
            old, self._process = self._process, new
            watch = asyncio.create_task(self._mind(new), name="watch over the worker process")
            self._watches.add(watch)
            watch.add_done_callback(self._watches.discard)
            if old is not None:
                await _ended(old)
            return True

    async def _mind(self, process: WorkerProcess) -> None:
        """Starts another one if it dies, unless it has been replaced."""
        code = await process.ended()
        if self._process is not process:
            return
        self._process = None
        self._note(f"the worker ended with {code}: it is started again")
        await asyncio.sleep(PAUSE)
        if self._process is None:
            await self._replace()


async def _ended(process: WorkerProcess) -> None:
    process.terminate()
    await process.ended()
