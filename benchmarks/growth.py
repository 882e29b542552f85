"""What a turn costs in a session that grows, and what it costs to load the session: `growth`.

A turn has four messages, about 1 KB, and changes two values of the state. At turn 1, 50, 500 and 5,000 of one
session, the commits around that turn are measured (at turn 1: the first ones of as many sessions):

    latency   of `save`: the median
    CPU       of this process and of the store's server, per commit
    bytes     written to keep the commit, per commit; what that is for each store, `benchmarks.backends` says

Then the session is loaded, several times: the median, and the round trips. Ends with 1 and a sentence if a
turn's bytes grow with the session, or if loading 5,000 turns takes too long.

The last line of output is a JSON object: by store, by turn, `latency_ms`, `cpu_ms` and `bytes`, and by store
`load_ms`, `load_round_trips` and `loaded_turns`.
"""

import argparse
import asyncio
import itertools
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from atto.protocol.errors import AttoError
from benchmarks.backends import BACKENDS, DURABLE
from benchmarks.costs import WINDOW, Growth, measure, window
from benchmarks.records import Ratio, new_record, save
from tests.postgres import PostgresMissing

TURNS = (1, 50, 500, 5000)
QUICK = (1, 50, 500)
MAX_GROWTH = 1.5
MAX_LOAD_MS = 250.0
LOADED_FROM_SERVERS = ("kv", "postgres")


def complaints(grown: dict[str, Growth]) -> Iterable[str]:
    """What is not as it must be."""
    for name, growth in grown.items():
        early, late = growth.turns.get(50), growth.turns.get(500)
        if name in DURABLE and early and late and late.bytes > MAX_GROWTH * early.bytes:
            yield (
                f"{name}: turn 500 writes {late.bytes:,} bytes, more than {MAX_GROWTH} times the "
                f"{early.bytes:,} bytes of turn 50."
            )
        if name in LOADED_FROM_SERVERS and growth.loaded_turns >= 5000 and growth.load_ms > MAX_LOAD_MS:
            yield (
                f"{name}: loading {growth.loaded_turns:,} turns takes {growth.load_ms} ms, "
                f"more than {MAX_LOAD_MS:g} ms."
            )


def ratios(grown: dict[str, Growth]) -> Iterable[tuple[str, Ratio]]:
    """By how much what a commit writes grows with its session."""
    for name, growth in grown.items():
        early, late = growth.turns.get(50), growth.turns.get(500)
        if name in DURABLE and early and late:
            ratio = Ratio(late.bytes / early.bytes, MAX_GROWTH, less_is_better=True)
            yield f"bytes of turn 500 to turn 50, {name}", ratio


def table(grown: dict[str, Growth]) -> Iterable[str]:
    """For people."""
    yield f"{'store':10}{'turn':>7}{'latency ms':>12}{'CPU ms':>10}{'bytes':>10}"
    for name, growth in grown.items():
        for turn, cost in growth.turns.items():
            yield f"{name:10}{turn:>7,}{cost.latency_ms:>12.3f}{cost.cpu_ms:>10.3f}{cost.bytes:>10,}"
    yield ""
    yield f"{'store':10}{'turns loaded':>14}{'ms':>8}{'round trips':>13}"
    for name, growth in grown.items():
        loaded = f"{growth.loaded_turns:>14,}{growth.load_ms:>8.1f}{growth.load_round_trips:>13}"
        yield f"{name:10}{loaded}"


async def run(stores: Iterable[str], turns: Sequence[int]) -> dict[str, Growth]:
    grown: dict[str, Growth] = {}
    for name in stores:
        async with BACKENDS[name]() as backend:
            grown[name] = await measure(backend, turns)
    return grown


def main(arguments: list[str]) -> int:
    """Returns the status to exit with."""
    given = _parse(arguments)
    if not sys.platform.startswith("linux"):
        print("This benchmark reads what processes cost from Linux's /proc.", file=sys.stderr)
        return 1
    try:
        grown = asyncio.run(run(given.stores, QUICK if given.quick else given.turns))
    except (AttoError, PostgresMissing) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(*table(grown), "", sep="\n")
    found = list(complaints(grown))
    for complaint in found:
        print(complaint, file=sys.stderr)
    sys.stderr.flush()
    figures: dict[str, Any] = {name: growth.as_json() for name, growth in grown.items()}
    if given.record:
        save(new_record("growth", dict(ratios(grown)), figures))
    print(msgspec.json.encode(figures).decode())
    return 1 if found else 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stores", type=_stores, default=tuple(BACKENDS), help=",".join(BACKENDS))
    parser.add_argument("--turns", type=_turns, default=TURNS, help="by default 1,50,500,5000")
    parser.add_argument("--quick", action="store_true", help="turns up to 500")
    parser.add_argument("--record", action="store_true", help="keeps the result in benchmarks/results")
    return parser.parse_args(arguments)


def _stores(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := [name for name in names if name not in BACKENDS]:
        known = ", ".join(BACKENDS)
        raise argparse.ArgumentTypeError(f"no such store: {', '.join(unknown)}; there are {known}")
    return names


def _turns(text: str) -> tuple[int, ...]:
    turns = tuple(map(int, text.split(",")))
    if turns[0] < 1:
        raise argparse.ArgumentTypeError("turns are numbered from 1")
    for one, other in itertools.pairwise(turns):
        if other <= one or (one > 1 and window(other).start < window(one).stop):
            raise argparse.ArgumentTypeError(f"turn {other} is not {WINDOW} turns after turn {one}")
    return turns
