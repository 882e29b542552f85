"""The memory of idle sessions: `idle`.

10,000 sessions with 10 turns each, idle for long enough to be packed, and what the worker's memory has grown
by, after the collector has run and what is free was given back to the system. Then a worker that passivates
sessions after a while: it is busy with some, which all leave, and then with 10,000 more, which leave as well.
What those have left is what passivated sessions leave. What being busy has left is a figure of its own:
it does not grow with the sessions, since Python keeps for later what its objects had at their peak. The last
line of output is a JSON object.
"""

import asyncio

from atto_workers.passivation import PACK_AFTER
from atto_workers.worker import PASSIVATION_PERIOD
from benchmarks.command import run, table
from benchmarks.records import Ratio, Record, new_record
from benchmarks.weather.caller import Window
from benchmarks.weather.contenders import ATTO, Contender, contender

SESSIONS = 10_000
BUSY = 10_000
PASSIVATED = 10_000
TURNS = 10
MEGABYTES = 100.0
"""What 10,000 idle sessions may have."""
PACKED = PACK_AFTER + 2 * PASSIVATION_PERIOD
"""Seconds within which idle sessions have been packed. A worker tells nobody of it."""
IDLE_LIMIT = 10.0
"""Long enough for a worker to have as many unpacked sessions as it ever has."""
GONE = 3 * PASSIVATION_PERIOD
"""Seconds after that within which idle sessions have left. A worker tells nobody of that either."""


async def measure(is_quick: bool) -> Record:
    sessions, busy, passivated, turns = (
        (100, 100, 100, 2) if is_quick else (SESSIONS, BUSY, PASSIVATED, TURNS)
    )
    async with contender(ATTO) as running:
        empty = await _warm(running)
        grown = await _filled(running, sessions, turns, wait=0 if is_quick else PACKED) - empty
        await running.verify()
    idle_limit = 1.0 if is_quick else IDLE_LIMIT
    async with contender(ATTO, idle_limit=idle_limit) as running:
        empty = await _warm(running)
        before = await _filled(running, busy, turns, wait=idle_limit + GONE)
        left = await _filled(running, passivated, turns, wait=idle_limit + GONE) - before
    table(
        ("sessions", "turns each", "MB", "kB a session"),
        (
            _row(f"{sessions:,} idle", turns, grown, sessions),
            _row(f"{busy:,} passivated, the first ones", turns, before - empty, busy),
            _row(f"{passivated:,} passivated after them", turns, left, passivated),
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
        "bytes_of_having_been_busy": before - empty,
    }
    return new_record("idle", ratios, figures)


async def _warm(running: Contender) -> int:
    """The memory of a worker that has run turns of a few sessions."""
    await running.caller.ask(Window, fill=64, turns=2, concurrency=64)
    return await _resident(running)


async def _resident(running: Contender) -> int:
    answer = await running.workers[0].ask(dict[str, int], settle=True)
    return answer["resident"]


async def _filled(running: Contender, sessions: int, turns: int, *, wait: float) -> int:
    """The memory `wait` seconds after the last turn of so many new sessions."""
    await running.caller.ask(Window, fill=sessions, turns=turns, concurrency=64)
    await asyncio.sleep(wait)
    return await _resident(running)


def _row(name: str, turns: int, grown: int, sessions: int) -> tuple[str, ...]:
    return name, str(turns), f"{grown / 1e6:.1f}", f"{grown / sessions / 1e3:.2f}"


def main(arguments: list[str]) -> int:
    return run("idle", __doc__, measure, arguments)
