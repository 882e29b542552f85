"""A terminal, as a person has one: what is typed goes in byte by byte, what is shown comes out."""

import asyncio
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tests.cli.commands import ENTRY, PATIENCE, environment

CTRL_C, CTRL_D, ENTER = "\x03", "\x04", "\r"
_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>]|\][^\x07]*\x07)")
# The child takes the terminal for its own, so that Ctrl-C reaches it as a signal.
_TAKE = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A command in a terminal. `shown` is all that it showed, without escape sequences."""

    def __init__(self, process: asyncio.subprocess.Process, master: int) -> None:
        self.process = process
        self._master = master
        self._raw = b""
        self._news = asyncio.Event()
        self._read_to = 0
        asyncio.get_running_loop().add_reader(master, self._read)

    @property
    def shown(self) -> str:
        """Everything so far."""
        return _ESCAPES.sub("", self._raw.decode(errors="replace"))

    def type(self, keys: str) -> None:
        """Presses keys."""
        os.write(self._master, keys.encode())

    async def until(self, text: str) -> None:
        """Waits until `text` is shown, after what was waited for last."""
        try:
            async with asyncio.timeout(PATIENCE):
                while (found := self.shown.find(text, self._read_to)) < 0:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            raise AssertionError(f"{text!r} was not shown:\n{self.shown[self._read_to :]}") from None
        self._read_to = found + len(text)

    async def pressed(self, key: str, text: str) -> None:
        """Presses a key until `text` is shown: two Ctrl-C at one time may be one signal."""
        async with asyncio.timeout(PATIENCE):
            is_shown = False
            while not is_shown:
                self.type(key)
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await self.until(text)
                        is_shown = True

    async def ended(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(PATIENCE):
            return await self.process.wait()

    async def left(self) -> int:
        """Presses Ctrl-D until the command ends; its exit code. Between two prompts a key may be lost."""
        async with asyncio.timeout(PATIENCE):
            while self.process.returncode is None:
                self.type(CTRL_D)
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await self.process.wait()
        return self.process.returncode

    def close(self) -> None:
        """Takes the terminal away."""
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)

    def _read(self) -> None:
        with suppress(OSError):  # EIO: nobody has the other end any more
            self._raw += os.read(self._master, 65536)
            self._news.set()
            return
        asyncio.get_running_loop().remove_reader(self._master)


@asynccontextmanager
async def terminal(*arguments: str, cwd: Path, **given: str) -> AsyncGenerator[Terminal]:
    """A command in a terminal of its own; killed when it is left, unless it has ended."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _TAKE, ENTRY, *arguments),
        cwd=cwd,
        # This terminal does not tell where its cursor is.
        env={**environment(given), "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    opened = Terminal(process, master)
    try:
        yield opened
    finally:
        if process.returncode is None:
            process.kill()
            await opened.ended()
        opened.close()
