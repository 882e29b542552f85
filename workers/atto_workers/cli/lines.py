"""What a user types, line by line: with an editor in a terminal, else as it comes on standard input."""

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator

from atto.protocol.errors import MissingExtra


async def typed() -> AsyncGenerator[str]:
    """The lines; ends at Ctrl-D or at the end of the input. Ctrl-C drops the line. Raises `MissingExtra`."""
    async for line in _edited() if sys.stdin.isatty() else _piped():
        if line.strip():
            yield line


async def _edited() -> AsyncGenerator[str]:
    try:
        from prompt_toolkit import PromptSession  # noqa: PLC0415 - part of the extra `cli`
        from prompt_toolkit.patch_stdout import patch_stdout  # noqa: PLC0415
    except ModuleNotFoundError:
        raise MissingExtra("the chat is an extra: pip install 'atto-workers[cli]'") from None
    session: PromptSession[str] = PromptSession()
    while True:
        try:
            # Only around the prompt: what it prints above it, it prints late, which no stream should be.
            with patch_stdout(raw=True):
                line = await session.prompt_async("you> ", handle_sigint=False)
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        yield line


async def _piped() -> AsyncGenerator[str]:
    """Read by a thread that nobody waits for: it may hang in the read when the program ends."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        try:
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, "")
        except RuntimeError:
            pass  # the loop has ended

    threading.Thread(target=read, name="standard input", daemon=True).start()
    while line := await lines.get():
        yield line.rstrip("\n")
