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

    async def said(self, key: str) -> Any:
        """The value of the next line that has `key`."""
        assert self.process.stdout is not None
        while True:
            line = await self.process.stdout.readline()
            assert line, "the child ended"
            values = json.loads(line)
            if key in values:
                return values[key]

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
