"""Runs commands: the real entry point, as a person or a supervisor does, or what is behind it."""

import asyncio
import contextlib
import io
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from atto_workers.cli.app import run

ENTRY = str(Path(sys.executable).with_name("atto"))
PATIENCE = 30
"""Seconds for anything, on a loaded machine."""


class Done(NamedTuple):
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str


async def atto(*arguments: str, cwd: Path, **given: str) -> Done:
    """Runs a command to its end."""
    process = await asyncio.create_subprocess_exec(
        *(ENTRY, *arguments),
        cwd=cwd,
        env=environment(given),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    except BaseException:
        process.kill()
        await process.communicate()
        raise
    return Done(process.returncode or 0, out.decode(), err.decode())


async def called(*arguments: str, cwd: Path, **given: str) -> Done:
    """What `atto` does, in this process: without the start of an interpreter, which takes longer than most
    commands. For what a command does and says; what it logs and how it is ended only a process shows.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        mock.patch.dict(os.environ, environment(given), clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = await asyncio.to_thread(run, list(arguments))
    return Done(code, out.getvalue(), err.getvalue())


class Background:
    """A command that goes on, and its log."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def until(self, text: str) -> str:
        """Reads the log up to the line that holds `text`."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE):
            while line := (await self.process.stderr.readline()).decode():
                self.lines.append(line)
                if text in line:
                    return line
        raise AssertionError(f"{text!r} never came:\n{''.join(self.lines)}")

    async def ended(self) -> int:
        """Its exit code, once the rest of the log is read."""
        async with asyncio.timeout(PATIENCE):
            _, rest = await self.process.communicate()
        self.lines += rest.decode().splitlines(keepends=True)
        return self.process.returncode or 0


@asynccontextmanager
async def background(*arguments: str, cwd: Path, **given: str) -> AsyncGenerator[Background]:
    """A command that is killed when it is left, unless it has ended by then."""
    process = await asyncio.create_subprocess_exec(
        *(ENTRY, *arguments),
        cwd=cwd,
        env=environment(given),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    command = Background(process)
    try:
        yield command
    finally:
        if process.returncode is None:
            process.kill()
            await command.ended()


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


async def probe(port: int, path: str) -> tuple[int, str]:
    """What a health endpoint answers: status and reason; 0 if nobody listens."""
    return await asyncio.to_thread(_get, port, path)


async def until_ready(port: int, status: int = 200) -> str:
    """Probes until `/readyz` answers with the status; the reason."""
    async with asyncio.timeout(PATIENCE):
        while True:
            answer, reason = await probe(port, "/readyz")
            if answer == status:
                return reason
            await asyncio.sleep(0.05)  # as a supervisor does


def _get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def environment(given: dict[str, str]) -> dict[str, str]:
    """This process's own, without settings of the command line or of bytecode, and what is given."""
    ours = {name for name in os.environ if name.startswith("ATTO_")} | {"PYTHONDONTWRITEBYTECODE"}
    theirs = os.environ.keys() - ours
    kept = {name: os.environ[name] for name in (*theirs, "ATTO_NATS_SERVER") if name in os.environ}
    return {**kept, **given}
