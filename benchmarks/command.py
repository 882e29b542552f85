"""What the benchmarks of the workload share: their arguments, and their way to a result."""

import argparse
import asyncio
import statistics
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from atto.protocol.errors import AttoError
from benchmarks.records import Record, conclude
from tests.postgres import PostgresMissing

Measure = Callable[[bool], Coroutine[Any, Any, Record]]
"""Measures, prints its table for people, and returns what it found; `True` for quick."""


def run(name: str, description: str | None, measure: Measure, arguments: list[str]) -> int:
    """Returns the status to exit with."""
    parser = argparse.ArgumentParser(
        prog=f"benchmarks {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="in seconds; shows that it works, not how fast")
    parser.add_argument("--record", action="store_true", help="keeps the result in benchmarks/results")
    given = parser.parse_args(arguments)
    if not sys.platform.startswith("linux"):
        print("This benchmark reads what processes cost from Linux's /proc.", file=sys.stderr)
        return 1
    try:
        record = asyncio.run(measure(given.quick))
    except (AttoError, PostgresMissing) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return conclude(record, is_recording=given.record, is_quick=given.quick)


def percentile(values: Sequence[float], percent: float) -> float:
    """By nearest rank; 0.0 of nothing."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, -int(-len(ordered) * percent // 100) - 1)]


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints it: the first column to the left, the others to the right."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        print(
            first.ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)),
            sep="  ",
        )
    print()
