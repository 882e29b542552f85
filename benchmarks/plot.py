"""Draws the recorded results for the docs: `plot`. Needs matplotlib; writes docs/images/*.svg."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

from benchmarks.records import load

IMAGES = Path(__file__).parent.parent / "docs" / "images"
_COLOURS = {"atto": "#1f5fbf", "atto/postgres": "#7aa6e8", "floor": "#555555", "plain floor": "#aaaaaa"}
_PROCESSES = {"client": "#1f5fbf", "worker": "#e07b39", "broker": "#555555", "database": "#58a55c"}


def _turns(figures: dict[str, Any]) -> None:
    """Turns a second by turns in flight."""
    figure, axes = plt.subplots(figsize=(7, 3.6))
    by_contender = figures["turns_per_s"]
    for number, (name, values) in enumerate(by_contender.items()):
        places = [index + (number - 1.5) * 0.2 for index in range(len(values))]
        axes.bar(places, list(values.values()), width=0.19, label=name, color=_COLOURS[name])
    in_flight = list(next(iter(by_contender.values())))
    axes.set_xticks(range(len(in_flight)), in_flight)
    axes.set_xlabel("turns in flight")
    axes.set_ylabel("turns a second")
    axes.legend(frameon=False)
    _save(figure, "turns.svg")


def _cpu(figures: dict[str, Any]) -> None:
    """Where the CPU time of a turn goes, with 64 in flight."""
    figure, axes = plt.subplots(figsize=(7, 2.6))
    by_contender = figures["cpu_ms_by_process"]
    for name, by_in_flight in reversed(by_contender.items()):
        left = 0.0
        for process, ms in by_in_flight["64"].items():
            axes.barh(name, ms, left=left, color=_PROCESSES[process])
            left += ms
    for process, colour in _PROCESSES.items():
        axes.barh(next(iter(by_contender)), 0, color=colour, label=process)
    axes.set_xlabel("CPU ms a turn, 64 in flight")
    axes.legend(frameon=False)
    _save(figure, "cpu.svg")


def _save(figure: Any, name: str) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    IMAGES.mkdir(exist_ok=True)
    # No date, and names that do not change: the same results give the same file.
    figure.savefig(IMAGES / name, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    print(f"docs/images/{name}")


def main(_arguments: list[str]) -> int:
    record = load("turns")
    if record is None:
        print("nothing is recorded: `just bench turns --record`")
        return 1
    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "atto"
    _turns(record.figures)
    _cpu(record.figures)
    return 0
