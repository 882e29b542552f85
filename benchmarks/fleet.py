"""What a fleet costs while nothing runs, and how fast it settles: `fleet`.

50 and 100 worker processes share 1,024 partitions. Measured are the time from the start of all until each
partition has the owner that it ought to have; the CPU time of a worker and of the broker while nothing runs;
the time until the partitions of ten workers that are killed at once have owners again; and that of a rolling
restart, a tenth of the workers at a time. Neither cost may grow with the number of workers, for each of them.
The last line of output is a JSON object.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import nats

from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.protocol.errors import BrokerRefused, BrokerUnavailable
from atto.protocol.subjects import Subjects
from atto_workers.ownership import Ownership
from atto_workers.presence import About
from benchmarks.command import median, run, table
from benchmarks.processes import cpu_ns
from benchmarks.records import Ratio, Record, new_record

NAMESPACE = "fleet"
SIZES = (50, 100)
PARTITIONS = 1024
KILLED = 10
IDLE = 30.0
"""Seconds of doing nothing: several of the longest times between two looks."""
CALM = 12.0
"""Seconds after the last change before: news have been heard by then, and looks have their period."""
LIMIT = 180.0
"""Seconds by which a fleet must have settled: a safeguard, not a promise."""
POLL = 0.1


class Size(NamedTuple):
    """`quick`: a fleet that shows that it works, not what it costs."""

    workers: int
    partitions: int
    killed: int
    idle: float
    calm: float


class Fleet:
    """A broker, worker processes, and a look at them from outside."""

    def __init__(
        self, nursery: asyncio.subprocess.Process, broker: EmbeddedBroker, jetstream: JetStream, size: Size
    ) -> None:
        subjects = Subjects(NAMESPACE)
        self.broker = broker
        self.pids: list[int] = []
        self._nursery = nursery
        self._jetstream = jetstream
        self._bucket = subjects.members_bucket
        self._partitions = size.partitions + 1
        self._ownership = Ownership(jetstream, subjects, "observer", max_ack_pending=1, replicas=1)

    async def start(self, count: int) -> None:
        assert self._nursery.stdin is not None  # noqa: S101 - a pipe
        assert self._nursery.stdout is not None  # noqa: S101
        self._nursery.stdin.write(f"{count}\n".encode())
        self.pids += map(int, (await self._nursery.stdout.readline()).split())

    async def end(self, count: int, number: int) -> None:
        """Signals the oldest workers, and returns once they have ended."""
        ending, self.pids = self.pids[:count], self.pids[count:]
        for pid in ending:
            os.kill(pid, number)
        while any(map(_is_there, ending)):  # noqa: ASYNC110 - nobody else's children tell of their end
            await asyncio.sleep(POLL / 2)

    async def settled(self) -> float:
        """The time once every partition is owned, by the living, and by nobody more than an even share."""
        limit = -(-self._partitions // len(self.pids))
        async with asyncio.timeout(LIMIT):
            while True:
                with contextlib.suppress(BrokerUnavailable, BrokerRefused):
                    load = await self._load()
                    if sum(load.values()) == self._partitions and max(load.values()) <= limit:
                        return time.perf_counter()
                await asyncio.sleep(POLL)

    async def _load(self) -> Counter[int]:
        """Partitions by living process."""
        keys = await self._jetstream.read_last(f"KV_{self._bucket}", [f"$KV.{self._bucket}.>"])
        pids = {
            key.subject.rpartition(".")[2]: msgspec.json.decode(key.data, type=About).pid
            for key in keys
            if key.data
        }
        owners = await self._ownership.owners()
        load = Counter(pids.get(owner.worker, 0) for owner in owners.values())
        return Counter({pid: load[pid] for pid in self.pids})


@contextlib.asynccontextmanager
async def fleet(size: Size) -> AsyncGenerator[Fleet]:
    async with EmbeddedBroker() as broker:
        command = (sys.executable, "-m", "benchmarks.nursery", broker.url, NAMESPACE, str(size.partitions))
        pipe = asyncio.subprocess.PIPE
        nursery = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
        connection = await nats.connect(broker.url)
        try:
            async with JetStream(connection) as jetstream:
                yield Fleet(nursery, broker, jetstream, size)
        finally:
            await connection.close()
            await nursery.communicate(b"")  # closes its input, also before Python 3.12


async def _measured(size: Size) -> dict[str, Any]:
    async with fleet(size) as running:
        began = time.perf_counter()
        await running.start(size.workers)
        figures: dict[str, Any] = {"spread_s": await running.settled() - began}
        await asyncio.sleep(size.calm)
        figures |= await _idle(running, size.idle)
        began = time.perf_counter()
        await running.end(size.killed, signal.SIGKILL)
        figures["re_owned_s"] = await running.settled() - began
        began = time.perf_counter()
        await running.start(size.killed)
        figures["joined_s"] = await running.settled() - began
        began = time.perf_counter()
        for _ in range(0, size.workers, batch := max(1, size.workers // 10)):
            await running.end(batch, signal.SIGTERM)
            await running.start(batch)
        figures["rolling_restart_s"] = await running.settled() - began
        return {name: round(value, 3) for name, value in figures.items()}


async def _idle(running: Fleet, seconds: float) -> dict[str, Any]:
    before = {pid: cpu_ns(pid) for pid in (*running.pids, running.broker.pid)}
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    spent = {pid: (cpu_ns(pid) - ns) / 1e6 / took for pid, ns in before.items()}
    broker = spent.pop(running.broker.pid)
    return {
        "worker_ms_per_s": median(spent.values()),
        "broker_ms_per_s": broker,
        "broker_ms_per_s_and_worker": broker / len(spent),
        "worker_mb": median(map(_own_memory, running.pids)) / 1e6,
    }


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _own_memory(pid: int) -> int:
    """Bytes that the process has for itself: what was imported is shared."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(int(kb) for kb in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE))


async def measure(is_quick: bool) -> Record:
    sizes = (
        [Size(4, 16, 1, 1.0, 0.0)]
        if is_quick
        else [Size(workers, PARTITIONS, KILLED, IDLE, CALM) for workers in SIZES]
    )
    by_size = {str(size.workers): await _measured(size) for size in sizes}
    table(
        ("workers", *(name.replace("_", " ") for name in next(iter(by_size.values())))),
        [(workers, *(f"{value:,.2f}" for value in figures.values())) for workers, figures in by_size.items()],
    )
    ratios: dict[str, Ratio] = {} if is_quick else dict(_ratios(by_size))
    return new_record("fleet", ratios, {"partitions": sizes[0].partitions, "by_workers": by_size})


def _ratios(by_size: dict[str, dict[str, Any]]) -> Iterable[tuple[str, Ratio]]:
    few, many = by_size.values()
    for name, figure in (
        ("CPU of an idle worker, among 100 to among 50", "worker_ms_per_s"),
        ("CPU of the broker for each idle worker, 100 to 50", "broker_ms_per_s_and_worker"),
    ):
        yield name, Ratio(many[figure] / few[figure], 1.25, less_is_better=True)


def main(arguments: list[str]) -> int:
    return run("fleet", __doc__, measure, arguments)
