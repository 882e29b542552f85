"""The benchmark of growing sessions measures what it says. How long things take is not judged here."""

import asyncio
import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.costs import Cost, Growth
from benchmarks.growth import MAX_GROWTH, complaints

ROOT = Path(__file__).parent.parent


async def bench(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks", *arguments),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what processes cost is read from /proc")
async def test_a_turn_writes_what_it_weighs():
    status, output, errors = await bench("growth", "--quick", "--stores", "sqlite,kv")
    assert (status, errors) == (0, "")
    measured = msgspec.json.decode(output.splitlines()[-1])
    assert list(measured) == ["sqlite", "kv"]
    for store in measured.values():
        turns = [store.pop(turn) for turn in ("1", "50", "500")]
        for cost in turns:
            assert cost.keys() == {"latency_ms", "cpu_ms", "bytes"}
            assert cost["latency_ms"] > 0
            assert cost["cpu_ms"] > 0
            assert cost["bytes"] > 1000
        assert turns[2]["bytes"] <= MAX_GROWTH * turns[1]["bytes"]
        assert store.keys() == {"load_ms", "load_round_trips", "loaded_turns"}
        assert store["load_ms"] > 0
        assert store["loaded_turns"] >= 500
    assert measured["sqlite"]["load_round_trips"] == 0
    assert measured["kv"]["load_round_trips"] == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nothing",),
        ("growth", "--stores", "x"),
        ("growth", "--turns", "9,2"),
        ("compare",),
        ("compare", "docs"),
        ("compare", ".", "--in-flight", "1,0"),
    ],
)
async def test_what_it_does_not_know_is_refused(arguments):
    status, output, errors = await bench(*arguments)
    assert (status, output) == (2, "")
    assert errors.startswith("usage:")


def grown(at_50: int, at_500: int, load_ms: float) -> Growth:
    return Growth({50: Cost(1, 1, at_50), 500: Cost(1, 1, at_500)}, 5024, load_ms, 1)


def test_growing_costs_are_a_failure():
    assert list(complaints({"kv": grown(1000, 1500, 250), "memory": grown(0, 0, 300)})) == []
    assert list(complaints({"sqlite": grown(1000, 1501, 300)})) == [
        "sqlite: turn 500 writes 1,501 bytes, more than 1.5 times the 1,000 bytes of turn 50."
    ]
    assert list(complaints({"postgres": grown(1000, 1000, 250.1)})) == [
        "postgres: loading 5,024 turns takes 250.1 ms, more than 250 ms."
    ]
