"""What more worker processes bring: `scaling`.

The same load, 64 turns in flight, on namespaces with 1, 2 and 4 workers, in alternating windows. Caller and
broker need cores too: with fewer cores than processes, what more workers bring stays below their number, and
`cores busy` says how much of the machine was in use.
"""

import contextlib
import os
from collections import defaultdict

from benchmarks.command import median, run, table
from benchmarks.records import Ratio, Record, new_record
from benchmarks.weather.contenders import ATTO, Measured, contender

WORKERS = (1, 2, 4)
IN_FLIGHT = 64
ROUNDS = 5
SECONDS = 1.5


async def measure(is_quick: bool) -> Record:
    rounds, seconds = (1, 0.3) if is_quick else (ROUNDS, SECONDS)
    counts = (1, 2) if is_quick else WORKERS
    measured: dict[int, list[Measured]] = defaultdict(list)
    async with contextlib.AsyncExitStack() as stack:
        running = {count: await stack.enter_async_context(contender(ATTO, workers=count)) for count in counts}
        for each in running.values():
            await each.measured(loop=IN_FLIGHT, seconds=seconds)
        for _ in range(rounds):
            for count, each in running.items():
                measured[count].append(await each.measured(loop=IN_FLIGHT, seconds=seconds))
    figures = {
        str(count): {
            "turns_per_s": round(median(each.turns_per_s for each in some), 1),
            "cpu_ms_per_turn": round(median(sum(each.cpu_ms.values()) for each in some), 4),
            "cores_busy": round(
                median(each.turns_per_s * sum(each.cpu_ms.values()) / 1000 for each in some), 2
            ),
        }
        for count, some in measured.items()
    }
    table(
        ("workers", "turns/s", "CPU ms a turn", "cores busy"),
        (
            (
                count,
                f"{figure['turns_per_s']:,.0f}",
                f"{figure['cpu_ms_per_turn']:.3f}",
                f"{figure['cores_busy']:.2f} of {len(os.sched_getaffinity(0))}",
            )
            for count, figure in figures.items()
        ),
    )
    # Two workers, a caller and a broker on fewer than four cores have to share them.
    target = 1.8 if len(os.sched_getaffinity(0)) >= 4 else None
    ratios = {
        f"turns per s, {count} workers to 1": Ratio(
            median(
                more.turns_per_s / one.turns_per_s
                for more, one in zip(measured[count], measured[1], strict=True)
            ),
            target if count == 2 else None,
        )
        for count in counts[1:]
    }
    return new_record("scaling", ratios, {"by_workers": figures})


def main(arguments: list[str]) -> int:
    return run("scaling", __doc__, measure, arguments)
