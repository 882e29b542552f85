"""What is done to the processes, by seed: each fault is written down with its time and its victim."""

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable

from tests.chaos.fail_points import POINTS
from tests.chaos.fleet import Child, Fleet
from tests.chaos.records import Line, Recorder, now
from tests.postgres import Postgres

WEIGHTS: dict[str, float] = {
    "kill": 4,
    "stop": 4,
    "term": 3,
    "block": 2,
    "cut": 3,
    "stall": 2,
    **{f"fail_{point}": 1 for point in POINTS},
    "broker_kill": 2,
    "client_kill": 2,
}
"""`fail_…`: the worker kills itself at that point of a turn."""
POSTGRES_WEIGHTS: dict[str, float] = {**WEIGHTS, "postgres_restart": 2}
"""Where Postgres is the store."""

ARMED = 4.0
"""Seconds that an armed fail point waits for a turn to pass it."""


class Fault(Line, frozen=True, kw_only=True, tag="fault"):
    """`until`: when it was undone, as a stopped process continued or a broker was back. `pid`: 0 if it hit
    no single worker.
    """

    name: str
    until: float
    target: str
    pid: int = 0


Action = Callable[[], Awaitable[Fault | None]]


class Faults:
    """Inflicts faults on a fleet until its time is over, then lets those under way end.

    At least one worker is left alone at any time. `postgres`: the store's, if it is one.
    """

    def __init__(self, fleet: Fleet, recorder: Recorder, postgres: Postgres | None = None) -> None:
        self._fleet = fleet
        self._recorder = recorder
        self._chance = random.Random(f"faults {fleet.plan.seed}")
        self._broker = asyncio.Lock()
        self._postgres = postgres
        self._database = asyncio.Lock()
        self._actions: dict[str, Action] = {
            "kill": self._kill,
            "stop": self._stop,
            "term": self._term,
            "block": self._block,
            "cut": self._cut,
            "stall": self._stall,
            **{f"fail_{point}": self._fail_at(point) for point in POINTS},
            "broker_kill": self._kill_broker,
            "client_kill": self._kill_client,
            "postgres_restart": self._restart_postgres,
        }

    async def inflict(self, seconds: float) -> None:
        plan = self._fleet.plan
        weights = plan.faults or (WEIGHTS if self._postgres is None else POSTGRES_WEIGHTS)
        until = now() + seconds
        await asyncio.sleep(min(1.5, seconds / 10))  # let the load begin
        async with asyncio.TaskGroup() as tasks:
            while now() < until:
                name = self._chance.choices(list(weights), list(weights.values()))[0]
                tasks.create_task(self._inflict(name))
                await asyncio.sleep(min(self._chance.expovariate(1 / plan.interval), 5 * plan.interval))
                self._look_for_mishaps(tasks)

    async def _inflict(self, name: str) -> None:
        fault = await self._actions[name]()
        if fault is not None:
            self._recorder.add(fault)

    def _look_for_mishaps(self, tasks: asyncio.TaskGroup) -> None:
        for child in self._fleet.workers:
            if child.process.returncode is not None and not child.busy:
                child.busy = True
                tasks.create_task(self._replace(child, expected=set()))

    async def _replace(self, worker: Child, *, expected: set[int], pause: float = 0.0) -> None:
        await self._fleet.gone(worker, expected=expected)
        await asyncio.sleep(pause)
        await self._fleet.start_worker()

    # Each action returns what it did, or None if there was nothing to do it to.

    async def _kill(self) -> Fault | None:
        worker = self._some_worker()
        if worker is None:
            return None
        with held(worker):
            at = now()
            worker.signal(signal.SIGKILL)
            await self._replace(worker, expected={-signal.SIGKILL}, pause=self._chance.uniform(0, 1))
        return _fault("kill", at, worker, at)

    async def _stop(self) -> Fault | None:
        worker = self._some_worker()
        if worker is None:
            return None
        with held(worker):
            at = now()
            worker.signal(signal.SIGSTOP)
            await asyncio.sleep(self._chance.uniform(0.5, 6))
            until = now()
            worker.signal(signal.SIGCONT)
        return _fault("stop", at, worker, until)

    async def _term(self) -> Fault | None:
        """As in a rolling deploy: the new one starts while the old one drains."""
        worker = self._some_worker()
        if worker is None:
            return None
        with held(worker):
            at = now()
            worker.signal(signal.SIGTERM)
            await asyncio.gather(self._fleet.gone(worker, expected={0}), self._fleet.start_worker())
        return _fault("term", at, worker, at)

    async def _block(self) -> Fault | None:
        """The event loop stands still in the middle of a tool."""
        worker = self._some_worker()
        if worker is None:
            return None
        with held(worker):
            seconds = self._chance.uniform(0.5, 6)
            worker.tell(f"block {seconds}")
            try:
                async with asyncio.timeout(ARMED):
                    await worker.process.stdout.readline()
            except TimeoutError:
                worker.tell("block 0")
                return None
            at = now()
            await asyncio.sleep(seconds)
        return _fault("block", at, worker, at + seconds)

    def _fail_at(self, point: str) -> Action:
        async def fail() -> Fault | None:
            worker = self._some_worker()
            if worker is None:
                return None
            with held(worker):
                worker.tell(f"arm {point}")
                try:
                    async with asyncio.timeout(ARMED):
                        await worker.process.wait()
                except TimeoutError:
                    worker.tell("arm nothing")
                    return None
                at = now()
                await self._replace(worker, expected={-signal.SIGKILL}, pause=self._chance.uniform(0, 1))
            return _fault(f"fail_{point}", at, worker, at)

        return fail

    async def _cut(self) -> Fault | None:
        child = self._some_proxied()
        if child is None:
            return None
        at = now()
        child.proxy.cut()
        return _fault("cut", at, child, at)

    async def _stall(self) -> Fault | None:
        child = self._some_proxied()
        if child is None:
            return None
        with held(child):
            at = now()
            child.proxy.stall()
            await asyncio.sleep(self._chance.uniform(0.5, 5))
            until = now()
            child.proxy.flow()
        return _fault("stall", at, child, until)

    async def _kill_broker(self) -> Fault | None:
        if self._broker.locked():
            return None
        async with self._broker:
            at = now()
            await self._fleet.kill_broker()
            await asyncio.sleep(self._chance.uniform(0.05, 1.5))
            await self._fleet.restart_broker()
            return Fault(t=at, name="broker_kill", until=now(), target="broker")

    async def _kill_client(self) -> Fault | None:
        free = [client for client in self._fleet.clients if not client.busy]
        if not free:
            return None
        client = self._chance.choice(free)
        with held(client):
            at = now()
            client.signal(signal.SIGKILL)
            await self._fleet.gone(client, expected={-signal.SIGKILL})
            await asyncio.sleep(self._chance.uniform(0, 0.5))
            await self._fleet.start_client(self._fleet.index_of(client))
        return _fault("client_kill", at, client, at)

    async def _restart_postgres(self) -> Fault | None:
        if self._postgres is None or self._database.locked():
            return None
        async with self._database:
            at = now()
            await self._postgres.stop(self._chance.choice(("fast", "immediate")))
            await asyncio.sleep(self._chance.uniform(0.05, 1.5))
            await self._postgres.start()
            return Fault(t=at, name="postgres_restart", until=now(), target="postgres")

    def _some_worker(self) -> Child | None:
        free = [worker for worker in self._fleet.workers if not worker.busy]
        return self._chance.choice(free) if len(free) > 1 else None

    def _some_proxied(self) -> Child | None:
        children = [*self._fleet.workers, *self._fleet.clients]
        free = [child for child in children if not child.busy and child.proxy is not None]
        return self._chance.choice(free) if free else None


def _fault(name: str, at: float, child: Child, until: float) -> Fault:
    pid = child.pid if child.name.startswith("worker") else 0
    return Fault(t=at, name=name, until=until, target=child.name, pid=pid)


@contextlib.contextmanager
def held(child: Child):
    """One fault at a time for each process."""
    child.busy = True
    try:
        yield
    finally:
        child.busy = False
