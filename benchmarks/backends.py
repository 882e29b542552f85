"""The stores as the benchmarks use them: with a server of their own, and with meters on what they cost."""

import contextlib
import sqlite3
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg
import nats

from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.stores import MemoryStore, NatsKvStore, SessionStore
from atto.stores.postgres import PostgresStore
from atto.stores.sqlite import SqliteStore
from benchmarks.processes import bytes_written, cpu_ns, family_cpu_ns, parent
from benchmarks.relay import relay_to
from tests.postgres import Postgres


class Backend(NamedTuple):
    """A store under measurement.

    `cpu_ns`: what this process and the store's server have consumed so far. `written`: how many bytes were
    written so far to keep the sessions. `round_trips`: how many the load of a session takes, as counted on
    the wire.
    """

    store: SessionStore
    cpu_ns: Callable[[], int]
    written: Callable[[], Awaitable[int]]
    round_trips: Callable[[str], Awaitable[int]]


@contextlib.asynccontextmanager
async def memory() -> AsyncGenerator[Backend]:
    """Writes nothing, asks nobody."""
    yield Backend(MemoryStore(), time.process_time_ns, _nothing, _no_round_trips)


@contextlib.asynccontextmanager
async def sqlite() -> AsyncGenerator[Backend]:
    """Bytes: what this process writes to files, the log and its merge into the database.

    SQLite merges every 1,000 pages. Here it also does so before each reading, so that what was measured has
    its share of it, whatever was left by what came before.
    """
    with tempfile.TemporaryDirectory(prefix="atto-benchmark-") as directory:
        path = Path(directory) / "sessions.db"
        async with SqliteStore(path) as store:
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as shell:

                async def written() -> int:
                    shell.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    return bytes_written()

                yield Backend(store, time.process_time_ns, written, _no_round_trips)


@contextlib.asynccontextmanager
async def kv() -> AsyncGenerator[Backend]:
    """Bytes: what the broker writes, its blocks and index, and its replies of about 100 bytes a commit.

    (Measured beside it: the values that were published account for 99 % of that.)

    The stream's own count would be less: it forgets what a newer value replaced.
    """
    async with EmbeddedBroker() as broker, _bucket(broker.url) as store:
        port = urlsplit(broker.url).port or 0

        def consumed() -> int:
            return time.process_time_ns() + cpu_ns(broker.pid)

        async def written() -> int:
            return bytes_written(broker.pid)

        async def round_trips(session: str) -> int:
            async with relay_to(port) as relay, _bucket(f"nats://127.0.0.1:{relay.port}") as distant:
                await distant.load("nobody")
                before = relay.round_trips
                await distant.load(session)
                return relay.round_trips - before

        yield Backend(store, consumed, written, round_trips)


@contextlib.asynccontextmanager
async def postgres() -> AsyncGenerator[Backend]:
    """Bytes: of the write-ahead log. Every commit is synced to the disk."""
    async with Postgres(fsync=True) as server, PostgresStore(server.dsn) as store:
        shell = await asyncpg.connect(server.dsn)
        pid = parent(await shell.fetchval("SELECT pg_backend_pid()"))

        def consumed() -> int:
            return time.process_time_ns() + family_cpu_ns(pid)

        async def written() -> int:
            return int(await shell.fetchval("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"))

        async def round_trips(session: str) -> int:
            async with relay_to(server.port) as relay:
                dsn = server.dsn.replace(f":{server.port}/", f":{relay.port}/")
                async with PostgresStore(dsn, create_tables=False) as distant:
                    await distant.load("nobody")  # now the connection knows the statement
                    before = relay.round_trips
                    await distant.load(session)
                    return relay.round_trips - before

        try:
            yield Backend(store, consumed, written, round_trips)
        finally:
            await shell.close()


BACKENDS: dict[str, Callable[[], AbstractAsyncContextManager[Backend]]] = {
    "memory": memory,
    "sqlite": sqlite,
    "kv": kv,
    "postgres": postgres,
}

DURABLE = ("sqlite", "kv", "postgres")


@contextlib.asynccontextmanager
async def _bucket(url: str) -> AsyncGenerator[NatsKvStore]:
    connection = await nats.connect(url)
    try:
        async with JetStream(connection) as jetstream:
            store = NatsKvStore(jetstream)
            await store.declare()
            yield store
    finally:
        await connection.close()


async def _nothing() -> int:
    return 0


async def _no_round_trips(_session: str) -> int:
    return 0
