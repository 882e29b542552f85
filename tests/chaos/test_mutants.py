"""Workers broken on purpose are caught: `pytest -m mutants`."""

import pytest

from tests.chaos.command import chaos
from tests.chaos.mutants import CAUGHT_BY, MUTANTS
from tests.chaos.test_short import in_the_root

__all__ = ["in_the_root"]

SEEDS = 3
"""Runs that a mutant may take to be caught."""

pytestmark = [pytest.mark.mutants, pytest.mark.timeout(600)]


@pytest.mark.parametrize("mutant", MUTANTS)
async def test_a_broken_worker_is_caught(mutant):
    for seed in range(1, SEEDS + 1):
        code, result, output = await chaos(20, seed, "--mutant", mutant)
        if CAUGHT_BY[mutant] & result["violated"].keys():
            assert code == 1
            return
    pytest.fail(f"{mutant} was not caught: {output}")
