"""Short chaos runs: `pytest -m chaos`."""

import os
from pathlib import Path

import pytest

from tests.chaos.command import chaos

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)


async def test_a_short_run_breaks_no_promise():
    seed = os.environ.get("ATTO_CHAOS_SEED", "1")
    code, result, output = await chaos(15, seed, "--interval", 0.7)
    assert (code, result["violations"]) == (0, 0), output
    assert result["turns"] > 100
    assert len(result["faults"]) >= 4
    assert set(result["recovery_ms"]) >= {"p50", "p99", "max"}
    assert {"takeovers", "fenced_writes"} <= set(result)


async def test_a_run_in_which_no_fault_bit_is_a_failed_run():
    code, result, output = await chaos(2, 1, "--faults", "postgres_restart", "--sessions", 4)
    assert (code, result["violations"], result["faults_that_bit"]) == (1, 0, 0), output
