"""What a turn costs in this source tree and in another one, side by side in one run: `compare TREE`.

TREE is the root of a tree with an environment of its own, such as the commit before a change:

    git worktree add ../before HEAD~1
    (cd ../before && python3 -m venv .venv && .venv/bin/pip install -q rust-just && .venv/bin/just setup)
    just bench compare ../before

Either tree runs its own code and its own workload, each with a broker of its own, and they take turns in
windows of a second, so that what else the machine does meets both. A ratio is the median over the rounds of
this tree's figure to the other's in the same round. With `--effects` the tool changes something, so that the
broker confirms its call before it runs. The status is 1 if a turn costs more CPU than `--tolerance` allows
(default 0.03: 3 % more), all processes together, at any number in flight. The last line of output is a JSON
object.
"""

import argparse
import asyncio
import contextlib
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.command import median, percentile, table
from benchmarks.weather.children import ROOT, ChildFailed
from benchmarks.weather.contenders import Contender, Measured, contender_of

THIS, OTHER = "this", "other"
WARM_UP = 1.0

Round = dict[str, Measured]
"""A window of either tree."""
Figure = Callable[[Measured], float]


def _cpu_of(process: str) -> Figure:
    return lambda measured: measured.cpu_ms[process]


FIGURES: dict[str, Figure] = {
    "turns/s": lambda measured: measured.turns_per_s,
    "p50 ms": lambda measured: percentile(measured.window.turn_ms, 50),
    "first event ms": lambda measured: percentile(measured.window.event_ms, 50),
    "CPU ms": lambda measured: sum(measured.cpu_ms.values()),
    **{f"{process} ms": _cpu_of(process) for process in ("client", "worker", "broker")},
}


async def measure(tree: Path, options: argparse.Namespace) -> dict[int, list[Round]]:
    """By turns in flight."""
    rounds: dict[int, list[Round]] = defaultdict(list)
    async with contextlib.AsyncExitStack() as stack:
        running = [
            await stack.enter_async_context(contender_of(root, name, effects=options.effects))
            for name, root in ((THIS, ROOT), (OTHER, tree))
        ]
        for each in running:
            await each.measured(loop=32, seconds=WARM_UP)
        for number in range(options.rounds):
            for in_flight in options.in_flight:
                order = running[:: 1 if number % 2 else -1]  # whatever follows the other favours nobody
                rounds[in_flight].append(await _round(order, in_flight, options.seconds))
    return rounds


async def _round(order: list[Contender], in_flight: int, seconds: float) -> Round:
    return {each.name: await each.measured(loop=in_flight, seconds=seconds) for each in order}


def ratios(rounds: list[Round]) -> dict[str, float]:
    """By figure, this tree's to the other's."""
    return {
        name: round(median(figure(each[THIS]) / figure(each[OTHER]) for each in rounds), 4)
        for name, figure in FIGURES.items()
    }


def _print(rounds: dict[int, list[Round]]) -> None:
    for in_flight, some in rounds.items():
        rows = [
            (name, *(f"{median(figure(each[name]) for each in some):,.3f}" for figure in FIGURES.values()))
            for name in (OTHER, THIS)
        ]
        ratio = ("ratio", *(f"{value:.3f}" for value in ratios(some).values()))
        table((f"{in_flight} in flight", *FIGURES), [*rows, ratio])


def _tree(text: str) -> Path:
    tree = Path(text).resolve()
    if not (tree / "benchmarks" / "weather").is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not the root of a source tree with benchmarks")
    return tree


def _numbers(text: str) -> list[int]:
    try:
        numbers = [int(each) for each in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers from 1 on, as in 1,64,500")
    return numbers


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tree", type=_tree, metavar="TREE")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a window")
    parser.add_argument("--in-flight", type=_numbers, default=[1, 64, 500], metavar="N,…")
    parser.add_argument("--effects", action="store_true", help="the tool changes something")
    parser.add_argument("--tolerance", type=float, default=0.03)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    try:
        rounds = asyncio.run(measure(options.tree, options))
    except ChildFailed as error:
        print(error, file=sys.stderr)
        return 1
    _print(rounds)
    found = {str(in_flight): ratios(some) for in_flight, some in rounds.items()}
    worse = [at for at, each in found.items() if each["CPU ms"] > 1 + options.tolerance]
    for at in worse:
        print(f"At {at} in flight a turn costs {found[at]['CPU ms']:.3f} times the CPU.", file=sys.stderr)
    sys.stderr.flush()
    print(msgspec.json.encode({"effects": options.effects, "ratios": found}).decode(), flush=True)
    return 1 if worse else 0
