"""The chaos suite as its users run it, for tests."""

import asyncio
import contextlib
import sys
from typing import Any, NamedTuple

import msgspec


class Outcome(NamedTuple):
    """`result`: the JSON object in the last line of the output."""

    code: int
    result: dict[str, Any]
    output: str


async def chaos(*arguments: object) -> Outcome:
    """Runs it to its end; its processes end with it, however that comes."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.chaos", *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        stdout, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    output = stdout.decode()
    last = output.strip().rpartition("\n")[2]
    assert last.startswith("{"), output
    return Outcome(process.returncode or 0, msgspec.json.decode(last), output)
