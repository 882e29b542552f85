"""Workers broken on purpose are caught, by the name of the promise they break: `pytest -m mutants`."""

import pytest

from tests.chaos.command import chaos
from tests.chaos.mutants import MUTANTS
from tests.chaos.test_short import in_the_root

__all__ = ["in_the_root"]

SEEDS = 3
"""Runs that a mutant may take to be caught."""

pytestmark = [pytest.mark.mutants, pytest.mark.timeout(300)]


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_broken_worker_is_caught_by_name(name):
    mutant = MUTANTS[name]
    for seed in range(1, SEEDS + 1):
        code, result, output = await chaos(mutant.seconds, seed, "--mutant", name)
        if mutant.promise in result["violated"]:
            assert code == 1
            return
    pytest.fail(f"{name} was not caught as {mutant.promise}: {output}")
