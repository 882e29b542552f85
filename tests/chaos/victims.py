"""The processes that faults may have: one fault at a time for each, and at least one worker left alone."""

import asyncio
import contextlib
import random
import signal
from collections.abc import Awaitable, Callable, Iterator

from tests.chaos.fleet import Child, Fleet
from tests.chaos.records import Fault

Action = Callable[[], Awaitable[Fault | None]]
"""Inflicts a fault and sees it to its end. Returns what was done, or None if there was nobody to do it to."""

ARMED = 4.0
"""Seconds for which a fault that was armed waits for a turn to come by."""


class Victims:
    """Chooses them, by seed."""

    def __init__(self, fleet: Fleet, chance: random.Random) -> None:
        self.fleet = fleet
        self.chance = chance

    def worker(self) -> Child | None:
        free = [worker for worker in self.fleet.workers if not worker.busy]
        return self.chance.choice(free) if len(free) > 1 else None

    def proxied(self, *, only_workers: bool = False) -> Child | None:
        children = [*self.fleet.workers, *([] if only_workers else self.fleet.clients)]
        free = [child for child in children if not child.busy and child.proxy is not None]
        return self.chance.choice(free) if free else None

    def client(self) -> Child | None:
        free = [client for client in self.fleet.clients if not client.busy]
        return self.chance.choice(free) if free else None

    async def replace(self, worker: Child, *, expected: set[int], pause: float = 0.0) -> None:
        """Another worker comes once this one has gone."""
        await self.fleet.gone(worker, expected=expected)
        await asyncio.sleep(pause)
        await self.fleet.start_worker()

    async def replace_killed(self, worker: Child) -> None:
        await self.replace(worker, expected={-signal.SIGKILL}, pause=self.chance.uniform(0, 1))

    async def deploy(self, worker: Child) -> None:
        """As in a rolling deploy: the new one starts while the old one drains."""
        worker.signal(signal.SIGTERM)
        await asyncio.gather(self.fleet.gone(worker, expected={0}), self.fleet.start_worker())


@contextlib.contextmanager
def held(child: Child) -> Iterator[None]:
    """One fault at a time for each process."""
    child.busy = True
    try:
        yield
    finally:
        child.busy = False


async def said(worker: Child, word: str) -> bool:
    """Whether the worker says the word while what it was told to do is armed."""
    try:
        async with asyncio.timeout(ARMED):
            while line := await worker.process.stdout.readline():
                if line.decode().strip() == word:
                    return True
    except TimeoutError:
        pass
    return False


def fault_on(name: str, at: float, child: Child, *, until: float = 0.0, is_certain: bool = False) -> Fault:
    """One that hit a single process. `until`: by default it was over at once."""
    pid = child.pid if child.name.startswith("worker") else 0
    return Fault(t=at, name=name, until=until or at, target=child.name, pid=pid, is_certain=is_certain)
