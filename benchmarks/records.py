"""Recorded results, `benchmarks/results/NAME.json`, and the check of a new run against them.

Absolute times depend on the machine and on what else it does; ratios of one run far less. So ratios are
compared.
"""

import os
import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

RESULTS = Path(__file__).with_name("results")
TOLERANCE = 0.3
"""By how much of itself a ratio may be worse than the recorded one; runs on one machine differ by less."""


class Ratio(msgspec.Struct, frozen=True):
    """One figure that another machine would show as well. `target`: what it should be at least, or, if less
    of it is better, at most; None: nobody has said.
    """

    value: float
    target: float | None = None
    less_is_better: bool = False

    @property
    def is_met(self) -> bool:
        if self.target is None:
            return True
        return self.value <= self.target if self.less_is_better else self.value >= self.target


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured, as far as that matters."""

    cpus: int
    model: str
    system: str
    python: str


class Record(msgspec.Struct, frozen=True):
    """What one benchmark found. `figures`: its own JSON."""

    benchmark: str
    at: str
    machine: Machine
    ratios: dict[str, Ratio]
    figures: dict[str, Any]


def new_record(benchmark: str, ratios: dict[str, Ratio], figures: dict[str, Any]) -> Record:
    at = datetime.now(UTC).strftime("%Y-%m-%d")
    return Record(benchmark, at, this_machine(), ratios, figures)


def this_machine() -> Machine:
    return Machine(
        cpus=len(os.sched_getaffinity(0)),
        model=_cpu_model(),
        system=platform.system(),
        python=platform.python_version(),
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def save(record: Record) -> Path:
    path = RESULTS / f"{record.benchmark}.json"
    RESULTS.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n")
    return path


def load(benchmark: str) -> Record | None:
    path = RESULTS / f"{benchmark}.json"
    return msgspec.json.decode(path.read_bytes(), type=Record) if path.exists() else None


def regressions(new: Mapping[str, Ratio], recorded: Mapping[str, Ratio]) -> Iterable[str]:
    """What is worse than recorded by more than the tolerance, in sentences."""
    for name, ratio in new.items():
        before = recorded.get(name)
        if before is None:
            continue
        worst = before.value * (1 + TOLERANCE if ratio.less_is_better else 1 - TOLERANCE)
        if ratio.value > worst if ratio.less_is_better else ratio.value < worst:
            yield f"{name} is {ratio.value:.3g}; it was {before.value:.3g} when it was last recorded."


def conclude(record: Record, *, is_recording: bool, is_quick: bool) -> int:
    """Says how the targets stand, records or compares, and prints the line of JSON. Returns the status."""
    for name, ratio in record.ratios.items():
        if ratio.target is not None:
            verdict = "met" if ratio.is_met else "missed"
            bound = "at most" if ratio.less_is_better else "at least"
            print(f"{name}: {ratio.value:.3g}; target {bound} {ratio.target:g}: {verdict}")
    worse: list[str] = []
    if is_recording:
        print(f"recorded in benchmarks/results/{save(record).name}")
    elif not is_quick and (recorded := load(record.benchmark)) is not None:
        worse = list(regressions(record.ratios, recorded.ratios))
    for complaint in worse:
        print(complaint, file=sys.stderr)
    sys.stderr.flush()
    ratios = {name: round(ratio.value, 4) for name, ratio in record.ratios.items()}
    print(msgspec.json.encode({**record.figures, "ratios": ratios}).decode(), flush=True)
    return 1 if worse else 0
