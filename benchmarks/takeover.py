"""How long the turns of a worker that is killed stand still: `takeover`.

Two workers, a model that takes its time, and a turn in flight in each of many sessions. One worker is killed
(SIGKILL). For each run that it had begun: the time from the kill to the first event of the other worker's
attempt. Every turn must end with an answer and be committed once. The last line of output is a JSON object.
"""

import asyncio
import time

from atto_client import Client, events
from benchmarks.command import median, percentile, run, table
from benchmarks.records import Ratio, Record, new_record
from benchmarks.weather import work
from benchmarks.weather.contenders import ATTO, NAMESPACE, HistoryLost, contender

SESSIONS = 64
ROUNDS = 5
LIMIT = 10.0
"""Seconds by which a turn must go on: a safeguard, not a promise."""


async def measure(is_quick: bool) -> Record:
    rounds = [await _takeover(SESSIONS) for _ in range(1 if is_quick else ROUNDS)]
    stalls = [ms for some in rounds for ms in some]
    longest = [max(some) for some in rounds]
    figures = {
        "runs_taken_over": len(stalls),
        "p50_ms": round(percentile(stalls, 50), 1),
        "p99_ms": round(percentile(stalls, 99), 1),
        "all_ms": round(median(longest), 1),
    }
    table(
        ("killed", "runs taken over", "p50 ms", "p99 ms", "all of them, ms"),
        [
            (
                f"{len(rounds)} times",
                str(len(stalls)),
                *(f"{figures[of]:,.0f}" for of in ("p50_ms", "p99_ms", "all_ms")),
            )
        ],
    )
    ratios = {
        "seconds until a killed worker's turns go on": Ratio(
            figures["all_ms"] / 1000, 4.0, less_is_better=True
        )
    }
    return new_record("takeover", ratios, figures)


async def _takeover(sessions: int) -> list[float]:
    """Milliseconds from the kill to the next word of each run that was taken over."""
    async with (
        contender(ATTO, workers=2, paced=True) as running,
        Client(running.broker.url, namespace=NAMESPACE) as client,
    ):
        started: asyncio.Queue[None] = asyncio.Queue()
        taken_over: list[float] = []

        async def turn(number: int) -> None:
            session = f"s{number:06}"
            async for event in client.run(session, work.question(session, 1)):
                match event:
                    case events.RunStarted(attempt=1):
                        started.put_nowait(None)
                    case events.RunStarted():
                        taken_over.append(time.perf_counter())
                    case events.RunFailed() | events.RunCancelled():
                        raise HistoryLost(f"{session} ended: {event}")
                    case _:
                        pass

        async with asyncio.TaskGroup() as turns:
            for number in range(sessions):
                turns.create_task(turn(number))
            for _ in range(sessions):
                await started.get()
            await asyncio.sleep(work.PACED.first / 2)  # in the middle of the first model call
            began = time.perf_counter()
            await running.workers[0].kill()
        for number in range(sessions):
            snapshot = await client.snapshot(f"s{number:06}")
            if snapshot.version != 1 or len(snapshot.messages) != work.MESSAGES:
                raise HistoryLost(f"session {number}: version {snapshot.version}")
        return [1000 * (when - began) for when in taken_over]


def main(arguments: list[str]) -> int:
    return run("takeover", __doc__, measure, arguments)
