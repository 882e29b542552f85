"""What a turn costs, from the caller to the caller, at 1, 16, 64 and 500 turns in flight: `turns`.

Client, worker and broker (and database) are processes of their own on this machine, with file storage; the
workload is that of `benchmarks.weather`. Contenders take turns in short windows of one run:

    atto            sessions in the broker's key-value store
    atto/postgres   sessions in Postgres, which syncs every commit
    floor           the best hand-written loop over the same streams, without atto
    plain floor     a hand-written loop as anybody would write it

In the end all workers and brokers are killed, the brokers started again, and the histories read and compared.
Ratios are medians over the windows of a round. The last line of output is a JSON object: `turns_per_s`,
`cpu_ms_per_turn`, `first_event_ms`, and more, by contender and turns in flight; and `ratios`.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from benchmarks.command import median, percentile, run, table
from benchmarks.records import Ratio, Record, new_record
from benchmarks.weather.contenders import ALL, ATTO, FLOOR, PLAIN, Contender, Measured, contender

IN_FLIGHT = (1, 16, 64, 500)
ROUNDS = 7
SECONDS = 1.0
WARM_UP = 1.0

Rounds = dict[int, list[dict[str, Measured]]]
"""By turns in flight, by round, by contender."""


class _Plan:
    """How much is measured."""

    def __init__(self, is_quick: bool) -> None:
        self.contenders = (ATTO, FLOOR, PLAIN) if is_quick else ALL
        self.in_flight = (1, 16) if is_quick else IN_FLIGHT
        self.rounds = 2 if is_quick else ROUNDS
        self.seconds = 0.3 if is_quick else SECONDS
        self.warm_up = 0.3 if is_quick else WARM_UP
        self.sample = 40 if is_quick else 200


async def measure(is_quick: bool) -> Record:
    plan = _Plan(is_quick)
    async with contextlib.AsyncExitStack() as stack:
        running = [await stack.enter_async_context(contender(name)) for name in plan.contenders]
        for each in running:
            await each.measured(loop=32, seconds=plan.warm_up)
        rounds = await _rounds(running, plan)
        verified = {each.name: await each.verify(plan.sample) for each in running}
    figures = {**_figures(rounds), "histories_verified": verified}
    _print(figures)
    return new_record("turns", _ratios(rounds), figures)


async def _rounds(running: list[Contender], plan: _Plan) -> Rounds:
    rounds: Rounds = defaultdict(list)
    for in_flight in plan.in_flight:
        for number in range(plan.rounds):
            # Each in its turn is the first one, so that what drifts within a round favours nobody.
            order = running[number % len(running) :] + running[: number % len(running)]
            rounds[in_flight].append(
                {each.name: await each.measured(loop=in_flight, seconds=plan.seconds) for each in order}
            )
    return rounds


def _figures(rounds: Rounds) -> dict[str, Any]:
    """Medians over the rounds; percentiles over all their turns."""

    def by_contender(figure: Callable[[list[Measured]], Any]) -> dict[str, dict[str, Any]]:
        return {
            name: {
                str(in_flight): figure([each[name] for each in some]) for in_flight, some in rounds.items()
            }
            for name in next(iter(rounds.values()))[0]
        }

    def cpu_by_process(some: list[Measured]) -> dict[str, float]:
        return {name: round(median(each.cpu_ms[name] for each in some), 4) for name in some[0].cpu_ms}

    def percent(of: str, percent: float) -> Callable[[list[Measured]], float]:
        return lambda some: round(
            percentile([ms for each in some for ms in getattr(each.window, of)], percent), 3
        )

    return {
        "turns_per_s": by_contender(lambda some: round(median(each.turns_per_s for each in some), 1)),
        "cpu_ms_per_turn": by_contender(lambda some: round(median(map(_cpu_ms, some)), 4)),
        "cpu_ms_by_process": by_contender(cpu_by_process),
        "first_event_ms": by_contender(percent("event_ms", 50)),
        "first_delta_ms": by_contender(percent("delta_ms", 50)),
        "p50_ms": by_contender(percent("turn_ms", 50)),
        "p99_ms": by_contender(percent("turn_ms", 99)),
    }


def _cpu_ms(measured: Measured) -> float:
    return sum(measured.cpu_ms.values())


def _ratios(rounds: Rounds) -> dict[str, Ratio]:
    ratios: dict[str, Ratio] = {}
    for in_flight, some in rounds.items():
        at = f"at {in_flight}"

        def median_of(figure: Callable[[Measured], float], name: str, other: str) -> float:
            return median(figure(each[name]) / figure(each[other]) for each in some)  # noqa: B023

        for other in (FLOOR, PLAIN):
            turns = median_of(lambda measured: measured.turns_per_s, ATTO, other)
            target = {(64, FLOOR): 0.5, (64, PLAIN): 1.0}.get((in_flight, other))
            ratios[f"turns per s, atto to {other}, {at}"] = Ratio(turns, target)
        target = 2.0 if in_flight == 64 else None
        cpu = median_of(_cpu_ms, ATTO, FLOOR)
        ratios[f"CPU a turn, atto to floor, {at}"] = Ratio(cpu, target, less_is_better=True)
    if 1 in rounds:
        added = median(_first_event(each[ATTO]) - _first_event(each[FLOOR]) for each in rounds[1])
        name = "first event in ms, atto less floor, at 1"
        ratios[name] = Ratio(added, 1.0, less_is_better=True)
    return ratios


def _first_event(measured: Measured) -> float:
    return percentile(measured.window.event_ms, 50)


def _print(figures: dict[str, Any]) -> None:
    header = ("in flight", "turns/s", "p50 ms", "p99 ms", "first event ms", "first delta ms", "CPU ms a turn")
    for in_flight in next(iter(figures["turns_per_s"].values())):
        rows: list[tuple[str, ...]] = []
        for name, turns in figures["turns_per_s"].items():
            by_process = figures["cpu_ms_by_process"][name][in_flight]
            shares = " + ".join(f"{process} {ms:.3f}" for process, ms in by_process.items())
            cells = (figures[of][name][in_flight] for of in ("p50_ms", "p99_ms", "first_event_ms"))
            rows.append(
                (
                    name,
                    f"{turns[in_flight]:,.0f}",
                    *(f"{cell:,.2f}" for cell in cells),
                    f"{figures['first_delta_ms'][name][in_flight]:,.2f}",
                    f"{figures['cpu_ms_per_turn'][name][in_flight]:.3f} = {shares}",
                )
            )
        table((f"{in_flight} in flight", *header[1:]), rows)


def main(arguments: list[str]) -> int:
    return run("turns", __doc__, measure, arguments)
