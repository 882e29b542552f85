"""The memory of idle sessions: `idle`.

10,000 sessions with 10 turns each, idle for long enough to be packed, and what the worker's memory has grown
by, after the collector has run and what is free was given back to the system. Then the same in a worker that
passivates sessions after a second: what is left when all are out. The last line of output is a JSON object.
"""

import asyncio
import time

from atto_workers.passivation import PACK_AFTER
from atto_workers.worker import PASSIVATION_PERIOD
from benchmarks.command import run, table
from benchmarks.records import Ratio, Record, new_record
from benchmarks.weather.caller import Window
from benchmarks.weather.contenders import ATTO, Contender, contender

SESSIONS = 10_000
PASSIVATED = 5_000
TURNS = 10
MEGABYTES = 100.0
"""What 10,000 idle sessions may have."""
PACKED = PACK_AFTER + 2 * PASSIVATION_PERIOD
"""Seconds within which idle sessions have been packed."""
IDLE_LIMIT = 1.0
PASSIVATION = 30.0
"""Seconds within which idle sessions must have left."""
_SETTLED = 1.5e6  # bytes


async def measure(is_quick: bool) -> Record:
    sessions, passivated, turns = (100, 100, 2) if is_quick else (SESSIONS, PASSIVATED, TURNS)
    async with contender(ATTO) as running:
        empty = await _warm(running)
        await running.caller.ask(Window, fill=sessions, turns=turns, concurrency=64)
        if not is_quick:
            await asyncio.sleep(PACKED)  # a worker tells nobody that it has packed a session
        grown = await _resident(running) - empty
        await running.verify()
    async with contender(ATTO, idle_limit=IDLE_LIMIT) as running:
        empty = await _warm(running)
        await running.caller.ask(Window, fill=passivated, turns=turns, concurrency=64)
        left = await _when_passivated(running, empty) - empty
    table(
        ("sessions", "turns each", "MB", "kB a session"),
        (
            (f"{sessions:,} idle", str(turns), f"{grown / 1e6:.1f}", f"{grown / sessions / 1e3:.2f}"),
            (f"{passivated:,} passivated", str(turns), f"{left / 1e6:.1f}", f"{left / passivated / 1e3:.2f}"),
        ),
    )
    ratios: dict[str, Ratio] = {}
    if not is_quick:
        per_limit = grown / 1e6 / (MEGABYTES * sessions / SESSIONS)
        ratios = {
            "memory of 10,000 idle sessions, in 100 MB": Ratio(per_limit, 1.0, less_is_better=True),
            "memory of passivated sessions, to that of idle ones": Ratio(
                max(0.0, left / passivated) / (grown / sessions), 0.05, less_is_better=True
            ),
        }
    figures = {
        "sessions": sessions,
        "turns_each": turns,
        "bytes_per_idle_session": round(grown / sessions),
        "bytes_per_passivated_session": round(left / passivated),
    }
    return new_record("idle", ratios, figures)


async def _warm(running: Contender) -> int:
    """The memory of a worker that has run turns of a few sessions."""
    await running.caller.ask(Window, fill=64, turns=2, concurrency=64)
    return await _resident(running)


async def _resident(running: Contender) -> int:
    answer = await running.workers[0].ask(dict[str, int], settle=True)
    return answer["resident"]


async def _when_passivated(running: Contender, empty: int) -> int:
    """The memory once it no longer falls, or after `PASSIVATION`."""
    end = time.monotonic() + PASSIVATION
    resident = await _resident(running)
    while time.monotonic() < end and resident > empty + _SETTLED:
        await asyncio.sleep(1)  # a worker looks for idle sessions every few seconds, and tells nobody
        resident = await _resident(running)
    return resident


def main(arguments: list[str]) -> int:
    return run("idle", __doc__, measure, arguments)
