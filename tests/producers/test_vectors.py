"""Every language merges as the Python client does: what a merger is told, line by line, and what it says."""

import asyncio
import json
import random

import msgspec
import pytest

from tests.producers import histories

SEEDS = random.Random(17).sample(range(1_000, 1_000_000), k=60)
PATIENCE = 60  # seconds


def given_and_said(lines: list[histories.JSON]) -> tuple[bytes, list[histories.JSON]]:
    given = b"".join(msgspec.json.encode(line["given"]) + b"\n" for line in lines)
    return given, [{key: value for key, value in line.items() if key != "given"} for line in lines]


async def merged(command: list[str], given: bytes) -> list[histories.JSON]:
    process = await asyncio.create_subprocess_exec(
        *command, "--merge", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(PATIENCE):
            out, _ = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


async def test_the_golden_file(command: list[str]):
    lines = [json.loads(line) for line in histories.GOLDEN.read_bytes().splitlines()]
    given, said = given_and_said(lines)
    assert await merged(command, given) == said


async def test_other_histories(command: list[str]):
    given, said = given_and_said([line for seed in SEEDS for line in histories.lines(seed)])
    assert await merged(command, given) == said


def test_the_golden_file_is_what_the_merger_says():
    assert histories.GOLDEN.read_bytes() == histories.golden(), "run `python -m tests.producers.histories`"


def test_the_golden_file_has_all_that_is_hard():
    lines = [json.loads(line) for line in histories.GOLDEN.read_bytes().splitlines()]
    assert sum(line["gap"] for line in lines) > 100
    assert sum(line["reread"] for line in lines) > 3
    assert sum(bool(line["due"]) and "skip" in line["given"] for line in lines) > 10
    types = {event["type"] for line in lines for event in line["given"].get("events", ())}
    assert {"reasoning_delta", "agent_started", "step_restarted", "of_a_newer_release"} <= types


@pytest.mark.parametrize("seed", range(300))
def test_what_stands_in_the_end_is_what_the_last_attempts_said(seed: int):
    rng = random.Random(seed)
    history = histories.a_history(rng)
    heard: dict[int, int] = {}
    gap = False
    for line in histories.said(histories.heard(rng, history), history):
        gap = line["gap"]
        for position in line["due"]:
            attempt, seq = map(int, position.split("-"))
            heard = {number: by for number, by in heard.items() if number < seq} | {seq: attempt}
    assert not gap
    expired = set(history.standing) - set(heard)
    assert {history.standing[seq]["type"] for seq in expired} <= {"text_delta", "reasoning_delta"}
    assert set(heard) <= set(history.standing)
