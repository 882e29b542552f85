"""Writes the recorded results into docs/performance.md: `pages`.

Each table stands between `<!-- NAME -->` and `<!-- /NAME -->`; what is between them is replaced.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.records import Record, load

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"


def turns(record: Record) -> Iterable[str]:
    figures = record.figures
    yield (
        "| in flight | | turns/s | p50, ms | p99, ms | first event, ms | first delta, ms | CPU, ms a turn "
        "| client | worker | broker | database |"
    )
    yield "| ---: | --- | " + " | ".join(["---:"] * 10) + " |"
    for in_flight in next(iter(figures["turns_per_s"].values())):
        for name in figures["turns_per_s"]:
            by_process = figures["cpu_ms_by_process"][name][in_flight]
            cells = [
                f"{figures['turns_per_s'][name][in_flight]:,.0f}",
                *(
                    f"{figures[of][name][in_flight]:,.2f}"
                    for of in ("p50_ms", "p99_ms", "first_event_ms", "first_delta_ms")
                ),
                f"{figures['cpu_ms_per_turn'][name][in_flight]:.3f}",
                *(_ms(by_process.get(process)) for process in ("client", "worker", "broker", "database")),
            ]
            yield f"| {in_flight} | {name} | {' | '.join(cells)} |"


def ratios(record: Record) -> Iterable[str]:
    yield "| ratio | value | target | |"
    yield "| --- | ---: | ---: | --- |"
    for name, ratio in record.ratios.items():
        bound = ""
        if ratio.target is not None:
            bound = f"{'≤' if ratio.less_is_better else '≥'} {ratio.target:g}"
        verdict = "" if ratio.target is None else "met" if ratio.is_met else "missed"
        yield f"| {name} | {ratio.value:.3g} | {bound} | {verdict} |"


def paced(record: Record) -> Iterable[str]:
    yield "| | turns/s | of the ideal | p50, ms | p99, ms | first delta, ms | CPU, ms a turn |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for name, figure in record.figures["by_contender"].items():
        yield (
            f"| {name} | {figure['turns_per_s']:,.0f} | {figure['of_ideal']:.1%} | {figure['p50_ms']:,.0f} "
            f"| {figure['p99_ms']:,.0f} | {figure['first_delta_ms']:,.0f} | {figure['cpu_ms_per_turn']:.2f} |"
        )


def session(record: Record) -> Iterable[str]:
    yield "| | turn | latency, ms | CPU, ms | bytes written |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, costs in record.figures["by_store"].items():
        for turn, cost in costs.items():
            figures = f"{cost['latency_ms']:.2f} | {cost['cpu_ms']:.2f} | {cost['bytes']:,.0f}"
            yield f"| {name} | {turn} | {figures} |"


def scaling(record: Record) -> Iterable[str]:
    yield "| workers | turns/s | CPU, ms a turn | cores busy |"
    yield "| ---: | ---: | ---: | ---: |"
    for count, figure in record.figures["by_workers"].items():
        yield (
            f"| {count} | {figure['turns_per_s']:,.0f} | {figure['cpu_ms_per_turn']:.3f} "
            f"| {figure['cores_busy']:.2f} of {record.machine.cpus} |"
        )


def takeover(record: Record) -> Iterable[str]:
    yield "| runs taken over | p50, ms | p99, ms | all of a killed worker's, ms |"
    yield "| ---: | ---: | ---: | ---: |"
    figures = record.figures
    times = (f"{figures[of]:,.0f}" for of in ("p50_ms", "p99_ms", "all_ms"))
    yield f"| {figures['runs_taken_over']} | {' | '.join(times)} |"


def idle(record: Record) -> Iterable[str]:
    figures = record.figures
    yield "| sessions | turns each | kB a session |"
    yield "| --- | ---: | ---: |"
    for what in ("idle", "passivated"):
        size = figures[f"bytes_per_{what}_session"] / 1000
        yield f"| {what} | {figures['turns_each']} | {size:.2f} |"


def fleet(record: Record) -> Iterable[str]:
    yield (
        "| workers | CPU of a worker, ms a second | of the broker | of the broker, each worker | MB a worker "
        "| spread, s | 10 killed, s | 10 joined, s | rolling restart, s |"
    )
    yield "| " + " | ".join(["---:"] * 9) + " |"
    for workers, figures in record.figures["by_workers"].items():
        cells = (
            *(f"{figures[of]:.2f}" for of in ("worker_ms_per_s", "broker_ms_per_s")),
            f"{figures['broker_ms_per_s_and_worker']:.2f}",
            *(
                f"{figures[of]:.1f}"
                for of in ("worker_mb", "spread_s", "re_owned_s", "joined_s", "rolling_restart_s")
            ),
        )
        yield f"| {workers} | {' | '.join(cells)} |"


TABLES: dict[str, Callable[[Record], Iterable[str]]] = {
    "turns": turns,
    "paced": paced,
    "session": session,
    "scaling": scaling,
    "takeover": takeover,
    "idle": idle,
    "fleet": fleet,
}


def filled(page: str, records: dict[str, Record]) -> str:
    """The page with the tables of these results, and where they were measured."""
    for name, record in records.items():
        page = _between(page, name, TABLES[name](record))
        page = _between(page, f"{name}-ratios", ratios(record))
        page = _between(page, f"{name}-where", [_where(record)])
    return page


def _between(page: str, mark: str, lines: Iterable[str]) -> str:
    text = f"<!-- {mark} -->\n" + "\n".join(lines) + f"\n<!-- /{mark} -->"
    pattern = rf"<!-- {re.escape(mark)} -->.*?<!-- /{re.escape(mark)} -->"
    return re.sub(pattern, lambda _: text, page, flags=re.DOTALL)


def _where(record: Record) -> str:
    machine = record.machine
    return (
        f"Recorded {record.at}: {machine.cpus} cores of a shared machine ({machine.model}), "
        f"{machine.system}, Python {machine.python}."
    )


def _ms(value: Any) -> str:
    return "" if value is None else f"{value:.3f}"


def main(_arguments: list[str]) -> int:
    records = {name: record for name in TABLES if (record := load(name)) is not None}
    PAGE.write_text(filled(PAGE.read_text(), records))
    print(f"docs/performance.md: {', '.join(records) or 'nothing is recorded'}")
    return 0
