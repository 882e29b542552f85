"""Python's garbage collector in a process that is a worker and nothing else."""

import gc

_THRESHOLDS = (10_000, 20, 20)


def collect_less_often() -> None:
    """Leaves alone what is there by now (modules, the agent), and looks for cycles at every ten-thousandth
    new container instead of every seven-hundredth.

    A run makes hundreds of containers and hardly a cycle: with Python's defaults the collector takes an
    eighth of a busy worker's CPU (measured). What it frees later is little.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
