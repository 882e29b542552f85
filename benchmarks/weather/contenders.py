"""Who takes part: each with a broker, and where it needs one a database, of its own; and what they cost."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import asyncpg
import msgspec
import nats

from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.stores import open_store
from atto_workers import Topology
from benchmarks.processes import bytes_written, cpu_ns, family_cpu_ns, parent
from benchmarks.weather import atto_side, floor, work
from benchmarks.weather.caller import Window
from benchmarks.weather.children import Child, child
from benchmarks.weather.process import Options
from benchmarks.weather.work import Entry
from tests.postgres import Postgres

ATTO = "atto"
POSTGRES = "atto/postgres"
FLOOR = "floor"
PLAIN = "plain floor"
ALL = (ATTO, POSTGRES, FLOOR, PLAIN)

NAMESPACE = "bench"
_KINDS = {ATTO: "atto", POSTGRES: "atto", FLOOR: "floor", PLAIN: "plain"}
_SAMPLE = 200


PATIENCE = 60.0
"""Seconds within which whatever a caller is told to do must be done; windows take two at the most."""


class Stalled(Exception):
    """Turns were begun that did not end."""


class HistoryLost(Exception):
    """What a store holds after its broker was killed is not what the callers saw."""


class Measured(NamedTuple):
    """A window, and the CPU milliseconds that a turn of it took, by process."""

    window: Window
    cpu_ms: dict[str, float]

    @property
    def turns_per_s(self) -> float:
        return self.window.turns / self.window.seconds


class Database(NamedTuple):
    """A Postgres that syncs every commit, and the meters on it."""

    dsn: str
    cpu_ns: Callable[[], int]
    written: Callable[[], Awaitable[int]]


class Contender:
    """One that runs: its processes, all up."""

    def __init__(
        self,
        name: str,
        broker: EmbeddedBroker,
        workers: list[Child],
        caller: Child,
        *,
        store: str,
        database: "Database | None",
    ) -> None:
        self.name = name
        self.broker = broker
        self.workers = workers
        self.caller = caller
        self.store = store
        self._database = database

    def cpu_ns(self) -> dict[str, int]:
        """What each process has consumed so far."""
        consumed = {
            "client": cpu_ns(self.caller.pid),
            "worker": sum(cpu_ns(worker.pid) for worker in self.workers),
            "broker": cpu_ns(self.broker.pid),
        }
        if self._database is not None:
            consumed["database"] = self._database.cpu_ns()
        return consumed

    async def bytes_written(self) -> int:
        """By the broker, and to the database's log, so far."""
        written = bytes_written(self.broker.pid)
        return written if self._database is None else written + await self._database.written()

    async def measured(self, **command: object) -> Measured:
        """What the caller does at a command, with what it cost."""
        before = self.cpu_ns()
        try:
            async with asyncio.timeout(PATIENCE):
                window = await self.caller.ask(Window, **command)
        except TimeoutError:
            raise Stalled(f"{self.name}: {command} was not done within {PATIENCE:g} s") from None
        after = self.cpu_ns()
        turns = max(1, window.turns)
        return Measured(window, {name: (after[name] - before[name]) / turns / 1e6 for name in after})

    async def verify(self, sample: int = _SAMPLE) -> int:
        """Kills worker and broker, starts the broker again, and reads what is there. How many sessions were
        compared. Raises `HistoryLost`.
        """
        ledger = await self.caller.ask(dict[str, int])
        turned = [(session, turns) for session, turns in ledger.items() if turns]
        for worker in self.workers:
            await worker.kill()
        await self.caller.kill()
        await self.broker.kill()
        async with self.broker, _reading(self) as read:
            chosen = turned[:: max(1, len(turned) // sample)]
            for session, turns in chosen:
                if await read(session) != list(work.history(session, turns)):
                    raise HistoryLost(f"{self.name}: session {session} after {turns} turns")
        return len(chosen)


@contextlib.asynccontextmanager
async def contender(
    name: str, *, workers: int = 1, paced: bool = False, idle_limit: float | None = None
) -> AsyncGenerator[Contender]:
    """All of its processes, up and connected."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atto-benchmark-")))
        broker = await stack.enter_async_context(EmbeddedBroker(directory))
        database = await _database(stack) if name == POSTGRES else None
        store = "nats-kv" if database is None else database.dsn
        await _declare(broker.url)
        options = Options(
            role="worker",
            contender=_KINDS[name],
            url=broker.url,
            namespace=NAMESPACE,
            store=store,
            paced=paced,
            idle_limit=idle_limit,
        )
        processes = [
            await stack.enter_async_context(child(options)) for _ in range(0 if name == PLAIN else workers)
        ]
        caller = await stack.enter_async_context(child(_as_caller(options)))
        yield Contender(name, broker, processes, caller, store=store, database=database)


@contextlib.asynccontextmanager
async def contender_of(tree: Path, name: str, *, effects: bool = False) -> AsyncGenerator[Contender]:
    """atto as the source tree `tree` has it, with a broker of its own. `effects`: as of `Options`."""
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atto-benchmark-")))
        broker = await stack.enter_async_context(EmbeddedBroker(directory))
        options = Options(
            role="worker", contender="atto", url=broker.url, namespace=NAMESPACE, effects=effects
        )
        worker = await stack.enter_async_context(child(options, tree))
        caller = await stack.enter_async_context(child(_as_caller(options), tree))
        yield Contender(name, broker, [worker], caller, store=options.store, database=None)


def _as_caller(options: Options) -> Options:
    return msgspec.structs.replace(options, role="caller")


async def _database(stack: contextlib.AsyncExitStack) -> Database:
    server = await stack.enter_async_context(Postgres(fsync=True))
    shell = await asyncpg.connect(server.dsn)
    stack.push_async_callback(shell.close)
    pid = parent(await shell.fetchval("SELECT pg_backend_pid()"))

    async def written() -> int:
        return int(await shell.fetchval("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))

    return Database(server.dsn, lambda: family_cpu_ns(pid), written)


async def _declare(url: str) -> None:
    """The streams of the namespace: the floors have the same ones."""
    connection = await nats.connect(url)
    try:
        async with JetStream(connection) as jetstream:
            await Topology(NAMESPACE).declare(jetstream)
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _reading(contender: Contender) -> AsyncGenerator[Callable[[str], Awaitable[list[Entry]]]]:
    connection = await nats.connect(contender.broker.url)
    try:
        if _KINDS[contender.name] != "atto":

            async def read(session: str) -> list[Entry]:
                return await floor.history(connection, NAMESPACE, session)

            yield read
            return
        async with JetStream(connection) as jetstream:
            opening = open_store(contender.store, jetstream=jetstream, namespace=NAMESPACE, replicas=1)
            async with opening as store:

                async def read(session: str) -> list[Entry]:
                    return await atto_side.history(store, session)

                yield read
    finally:
        await connection.close()
