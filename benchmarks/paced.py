"""500 sessions at once with a model that takes its time: `paced`.

The model takes 300 ms to its first token and 20 ms for each delta, 800 ms a turn; all turns begin at the same
moment. Ideal are as many turns a second as sessions divided by 0.8 s: 625. What is missing is the CPU work
that the waiting could not hide. The last line of output is a JSON object, by contender.
"""

import contextlib
from collections import defaultdict
from typing import Any

from benchmarks.command import median, percentile, run, table
from benchmarks.records import Ratio, Record, new_record
from benchmarks.weather.contenders import ALL, ATTO, FLOOR, Measured, contender
from benchmarks.weather.work import PACED

SESSIONS = 500
ROUNDS = 9


async def measure(is_quick: bool) -> Record:
    sessions, rounds = (50, 1) if is_quick else (SESSIONS, ROUNDS)
    names = (ATTO, FLOOR) if is_quick else ALL
    measured: dict[str, list[Measured]] = defaultdict(list)
    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(contender(name, paced=True)) for name in names]
        chosen = {each.name: await each.caller.ask(list[str], sessions=sessions) for each in running}
        for each in running:
            await each.measured(burst=chosen[each.name])  # its sessions and connections are warm then
        for _ in range(rounds):
            for each in running:
                measured[each.name].append(await each.measured(burst=chosen[each.name]))
        verified = {each.name: await each.verify() for each in running}
    ideal = sessions / PACED.turn
    figures = {name: _figures(some, ideal) for name, some in measured.items()}
    _print(figures, sessions, ideal)
    ratios = {
        f"turns per s, {name} to the ideal": Ratio(figure["of_ideal"], 0.9 if name == ATTO else None)
        for name, figure in figures.items()
    }
    return new_record("paced", ratios, {"by_contender": figures, "histories_verified": verified})


def _figures(some: list[Measured], ideal: float) -> dict[str, Any]:
    turns_per_s = median(each.turns_per_s for each in some)
    first = [ms for each in some for ms in each.window.delta_ms]
    turn = [ms for each in some for ms in each.window.turn_ms]
    return {
        "turns_per_s": round(turns_per_s, 1),
        "of_ideal": round(turns_per_s / ideal, 4),
        "p50_ms": round(percentile(turn, 50), 1),
        "p99_ms": round(percentile(turn, 99), 1),
        "first_delta_ms": round(percentile(first, 50), 1),
        "cpu_ms_per_turn": round(median(sum(each.cpu_ms.values()) for each in some), 3),
    }


def _print(figures: dict[str, dict[str, Any]], sessions: int, ideal: float) -> None:
    table(
        (f"{sessions} at once", "turns/s", f"of {ideal:g}", "p50 ms", "p99 ms", "first delta ms", "CPU ms"),
        (
            (
                name,
                f"{figure['turns_per_s']:,.0f}",
                f"{figure['of_ideal']:.1%}",
                f"{figure['p50_ms']:,.0f}",
                f"{figure['p99_ms']:,.0f}",
                f"{figure['first_delta_ms']:,.0f}",
                f"{figure['cpu_ms_per_turn']:.2f}",
            )
            for name, figure in figures.items()
        ),
    )


def main(arguments: list[str]) -> int:
    return run("paced", __doc__, measure, arguments)
