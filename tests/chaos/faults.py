"""What is done to the processes, by seed: each fault is written down with its time and its victim."""

import asyncio
import random

from tests.chaos.fail_points import POINTS
from tests.chaos.faults_on_brokers import BrokerFaults
from tests.chaos.faults_on_connections import ConnectionFaults
from tests.chaos.faults_on_workers import PAUSED_AT, WorkerFaults
from tests.chaos.fleet import Fleet
from tests.chaos.records import Recorder, now
from tests.chaos.victims import Victims
from tests.postgres import Postgres

WEIGHTS: dict[str, float] = {
    "kill": 3,
    "stop": 3,
    "term": 2,
    "term_saturated": 0.7,
    "term_stubborn": 0.7,
    "block": 1,
    "skew": 1,
    "raise": 2,
    "raise_in_model": 1,
    "cut": 2,
    "cut_at_ack": 1,
    "cut_at_commit": 1,
    "stall": 2,
    "deafen": 1,
    **{f"fail_{point}": 0.7 for point in POINTS},
    **{f"pause_{point}": 1 for point in PAUSED_AT},
    "broker_kill": 2,
    "events_full": 1,
    "client_kill": 2,
    "hostile_bytes": 1,
}
"""What a run of chaos is made of where nothing else is asked for. `fail_…`: the worker kills itself at that
point of a turn; `pause_…`: it pauses there for longer than it is taken for alive.
"""
ON_REQUEST: dict[str, float] = {
    "none": 1,
    "events_deleted": 1,
}
"""What is inflicted only where it is named."""
POSTGRES: dict[str, float] = {"postgres_restart": 2}
"""Where Postgres is the store."""
CLUSTER: dict[str, float] = {"node_kill": 2, "node_pause": 2}
"""Where there are several nodes, in the place of faults on the one broker."""
ALL: dict[str, float] = {**WEIGHTS, **ON_REQUEST, **POSTGRES, **CLUSTER}

_OF_ONE_BROKER = {"broker_kill", "cut", "cut_at_ack", "cut_at_commit", "stall", "deafen", "hostile_bytes"}


async def _none() -> None:
    """Where nothing is to go wrong."""


class Faults:
    """Inflicts faults on a fleet until its time is over, then lets those under way end.

    `postgres`: the store's, if it is one.
    """

    def __init__(self, fleet: Fleet, recorder: Recorder, postgres: Postgres | None = None) -> None:
        self._fleet = fleet
        self._recorder = recorder
        self._chance = random.Random(f"faults {fleet.plan.seed}")
        self._victims = Victims(fleet, self._chance)
        self._actions = {
            **WorkerFaults(self._victims).actions(),
            **ConnectionFaults(self._victims).actions(),
            **BrokerFaults(self._victims, postgres).actions(),
            "none": _none,
        }
        self._weights = fleet.plan.faults or self._usual(postgres)

    def _usual(self, postgres: Postgres | None) -> dict[str, float]:
        weights = {**WEIGHTS, **(POSTGRES if postgres is not None else {})}
        if postgres is not None:
            del weights["cut_at_commit"]  # commits go elsewhere
        if self._fleet.plan.nodes == 1:
            return weights
        return {**{name: weight for name, weight in weights.items() if name not in _OF_ONE_BROKER}, **CLUSTER}

    async def inflict(self, seconds: float) -> None:
        interval = self._fleet.plan.interval
        until = now() + seconds
        await asyncio.sleep(min(1.5, seconds / 10))  # let the load begin
        async with asyncio.TaskGroup() as tasks:
            while now() < until:
                name = self._chance.choices(list(self._weights), list(self._weights.values()))[0]
                tasks.create_task(self._inflict(name))
                await asyncio.sleep(min(self._chance.expovariate(1 / interval), 5 * interval))
                self._look_for_mishaps(tasks)

    async def _inflict(self, name: str) -> None:
        fault = await self._actions[name]()
        if fault is not None:
            self._recorder.add(fault)

    def _look_for_mishaps(self, tasks: asyncio.TaskGroup) -> None:
        for child in self._fleet.workers:
            if child.process.returncode is not None and not child.busy:
                child.busy = True
                tasks.create_task(self._victims.replace(child, expected=set()))
