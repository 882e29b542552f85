"""A caller: turns for some sessions at a steady rate, and a line for each answer.

EXAMPLE_TURNS_A_SECOND (2), EXAMPLE_SESSIONS (20), EXAMPLE_TURNS (0: until SIGTERM, after which it waits a
little for what is not answered yet). Ends with 1 if a run failed.
"""

import asyncio
import os
import signal
import sys
from itertools import count

from broker import addresses, login, namespace

from atto_client import AttoError, Client

RATE = float(os.environ.get("EXAMPLE_TURNS_A_SECOND", "2"))
SESSIONS = int(os.environ.get("EXAMPLE_SESSIONS", "20"))
TURNS = int(os.environ.get("EXAMPLE_TURNS", "0"))
PATIENCE = 5.0
"""Seconds, once it was told to stop."""


async def ask(client: Client, number: int) -> bool:
    """Whether the run completed."""
    session = f"customer-{number % SESSIONS}"
    try:
        completed = await client.submit(session, f"turn {number}")
        result = await completed.result()
    except AttoError as error:
        print(f"{session}: {type(error).__name__}: {error}", flush=True)
        return False
    print(f"{session} (version {result.version}): {result.text}", flush=True)
    return True


async def main() -> int:
    """The exit code."""
    stop = asyncio.Event()
    # Process 1 of a container has no default for signals: without this one it could only be killed.
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    asked: list[asyncio.Task[bool]] = []
    async with (
        Client(addresses(), namespace=namespace(), **login()) as client,
        asyncio.TaskGroup() as tasks,
    ):
        for number in range(TURNS) if TURNS else count():
            asked = [task for task in asked if not task.done() or not task.result()]
            asked.append(tasks.create_task(ask(client, number)))
            if await stopped_within(stop, 1 / RATE):
                break
        _, late = await asyncio.wait(asked, timeout=PATIENCE if stop.is_set() else None)
        for task in late:  # the turns are safe with the broker, and their runs go on
            task.cancel()
    return 0 if all(task.result() for task in asked if not task.cancelled()) else 1


async def stopped_within(stop: asyncio.Event, seconds: float) -> bool:
    """Waits that long, or until `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            return await stop.wait()
    except TimeoutError:
        return False


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
