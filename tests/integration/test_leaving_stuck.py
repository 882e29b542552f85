"""A worker whose users' code does not let go ends all the same, as does its process."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

STUCK = Path(__file__).with_name("stuck.py")
BOUND = 60
"""Far more than grace and the bound, for a busy machine; far less than for ever."""

pytestmark = pytest.mark.leaves_consumers  # another worker would delete them

NAMED = {
    "swallows": "tool stick of run r1 of session 'ann'",
    "thread": "tool stick of run r1 of session 'ann'",
    "model": "run r1 of session 'ann'",
    "agent": "run r1 of session 'ann'",
    "instruction": "instruction a of run r1 of session 'ann'",
    "store": "store StuckStore",
}


@pytest.mark.parametrize(
    ("how", "entry"),
    [
        *(
            (how, "serve")
            for how in ("swallows", "executor", "thread", "model", "agent", "instruction", "store")
        ),
        ("swallows", "worker"),
        ("swallows", "runtime"),
        ("executor", "runtime"),
    ],
)
async def test_a_process_with_stuck_code_ends(broker, namespace, how, entry):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, STUCK, broker.url, namespace, how, entry),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(BOUND):
            assert await process.stdout.readline() == b"began\n"
            if entry == "serve":
                process.send_signal(signal.SIGTERM)
            else:
                process.stdin.write(b"leave\n")
            output, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (output.split()[-2:], process.returncode) == ([b"left", b"end"], 0), log.decode()
    assert NAMED.get(how, "") in log.decode()
