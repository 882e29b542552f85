"""Child processes that tests kill."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

CHILD = Path(__file__).with_name("child.py")


class Child:
    """A running `child.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.pid = process.pid
        self._lines: list[dict[str, Any]] = []

    async def said(self, key: str) -> Any:
        """The value of the first line with `key` that was not asked for before.

        Lines that come before it are kept, since some have no order: a run may come to where it stalls before
        the broker's word that its turn was accepted has come to the caller.
        """
        for at, line in enumerate(self._lines):
            if key in line:
                return self._lines.pop(at)[key]
        while key not in (line := await self._next_line()):
            self._lines.append(line)
        return line[key]

    async def _next_line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, f"the child ended; nobody had asked for {self._lines}"
        return json.loads(line)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@contextlib.asynccontextmanager
async def child(*arguments: object) -> AsyncGenerator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, CHILD, *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Child(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
