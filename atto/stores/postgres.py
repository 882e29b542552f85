"""Sessions in Postgres: for deployments that have one, and want their sessions beside their other data.

How a session lies in the tables: `atto.stores.postgres_tables`.
"""

from collections.abc import AsyncIterator
from datetime import datetime
from types import TracebackType
from typing import Self
from uuid import uuid4

import asyncpg
from msgspec.structs import replace

from atto.protocol.errors import ConcurrentWrite, StoreMismatch, TopologyMissing
from atto.protocol.ids import encode_session
from atto.protocol.sessions import RECENT_RUNS, Commit, Snapshot
from atto.stores.encoding import (
    EMPTY_CONTINUATION,
    EMPTY_STATE,
    EncodedCommit,
    conflict,
    encode_commit,
    encode_whole,
    is_new,
    is_newest,
    occupied,
)
from atto.stores.postgres_database import Database
from atto.stores.postgres_rows import (
    Place,
    Turn,
    at_place,
    joined,
    journal,
    newest_run,
    past_turns,
    snapshot_of,
    text,
)
from atto.stores.postgres_tables import statements

_LISTED_AT_ONCE = 100


class PostgresStore:
    """`async with PostgresStore("postgresql://user:password@host/database") as store`.

    A load costs one round trip, and so does a save, which writes the commit and, if it changed, the state.
    (One more where a connection meets a statement for the first time, and at every call without a cache of
    statements.) A commit is as durable as the database makes it: see `synchronous_commit`.

    Instead of a DSN, a pool of asyncpg may be handed in; it is left open. Its `reset` costs a round trip a
    call, unless it is turned off. `pool_size` and `statement_cache_size` are those of an own pool. Behind a
    pooler in transaction mode (PgBouncer and its like), `statement_cache_size` is 0, here or in the pool.

    `create_tables`: whether entering the store calls `ensure_schema`. `table_prefix`: 1 to 40 of a-z, 0-9
    and _; stores with different prefixes know nothing of one another. `timeout`: seconds that a call may
    take, be it for a free connection or for the answer; then it raises `StoreUnavailable`.

    Every call raises `StoreUnavailable` if the connection is lost, or the server ends or starts;
    `TopologyMissing` without tables; `PostgresRefused` for a bad DSN, wrong credentials or missing rights;
    and `NotStorable` for what is larger than Postgres takes: a session may have 1 GB of JSON.
    """

    def __init__(
        self,
        dsn_or_pool: str | asyncpg.Pool,
        *,
        table_prefix: str = "atto_",
        pool_size: int = 10,
        statement_cache_size: int = 100,
        create_tables: bool = True,
        timeout: float = 10.0,
    ) -> None:
        self._sql = statements(table_prefix)
        self._prefix = table_prefix
        self._create_tables = create_tables
        self._database = Database(
            dsn_or_pool, pool_size=pool_size, statement_cache_size=statement_cache_size, timeout=timeout
        )

    def __repr__(self) -> str:
        return f"PostgresStore({self._database.name!r}, table_prefix={self._prefix!r})"

    async def __aenter__(self) -> Self:
        """Raises RuntimeError if the store is open already, and what `ensure_schema` raises."""
        await self._database.open()
        try:
            if self._create_tables:
                await self.ensure_schema()
        except BaseException:
            await self._database.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Calls that are under way end first, within `timeout`. May be called twice, and before entering."""
        await self._database.close()

    async def ensure_schema(self) -> None:
        """Creates the tables, or brings them up to this release; safe to call by many at once.

        Needs no rights to create where there is nothing to be done. Raises `StoreMismatch`, with nothing
        changed, for tables of a newer release, and for a database whose encoding is not UTF-8.
        """
        if await self._schema_version() < len(self._sql.migrations):
            await self._migrate()

    async def load(self, session: str) -> Snapshot | None:
        """As `SessionStore.load`."""
        rows = await self._database.fetch(self._sql.load, _key(session), RECENT_RUNS)
        return snapshot_of(session, rows[0]) if rows else None

    async def save(self, base: Snapshot, commit: Commit) -> Snapshot:
        """As `SessionStore.save`. A `base` without a token costs a load."""
        key, added = _key(base.session), encode_commit(commit)
        if is_new(base):
            return await self._create(key, base, added)
        if not isinstance(base.token, Place):
            base = await self._reloaded(base)
        return await self._append(key, base, base.token, added)

    async def fence(self, base: Snapshot) -> Snapshot:
        """As `SessionStore.fence`."""
        key = _key(base.session)
        if is_new(base):
            place = Place(uuid4(), EMPTY_STATE)
            rows = await self._database.fetch(self._sql.fence_new, key, place.generation)
        else:
            base = base if isinstance(base.token, Place) else await self._reloaded(base)
            place = base.token
            rows = await self._database.fetch(
                self._sql.fence, key, place.generation, base.version, place.fences
            )
        if not rows:
            raise await self._conflict(key, base)
        return at_place(base, place._replace(fences=rows[0]["fences"]))

    async def put(self, snapshot: Snapshot) -> Snapshot:
        """As `SessionStore.put`. Raises `NotStorable` for what is no committed session."""
        key, whole = _key(snapshot.session), encode_whole(snapshot)
        turns = [Turn(0, None, joined(whole)), *past_turns(snapshot)]
        stored = replace(snapshot, messages=whole.commit.messages)
        put = await self._insert(key, stored, whole, turns)
        if put is None:
            raise occupied(snapshot.session)
        return put

    async def delete(self, session: str, *, idle_since: datetime | None = None) -> bool:
        """As `SessionStore.delete`; `idle_since` is compared with the time of the server."""
        return bool(await self._database.fetch(self._sql.delete, _key(session), idle_since))

    async def sessions(self, *, after: str = "", idle_since: datetime | None = None) -> AsyncIterator[str]:
        """As `SessionStore.sessions`; sorted by code points. Holds no connection between its pages."""
        last = after.encode("utf-8", "surrogatepass")
        while True:
            rows = await self._database.fetch(self._sql.list, last, idle_since, _LISTED_AT_ONCE)
            for row in rows:
                yield row["id"].decode()
            if len(rows) < _LISTED_AT_ONCE:
                return
            last = rows[-1]["id"]

    async def _schema_version(self) -> int:
        """0: no tables."""
        try:
            (row,) = await self._database.fetch(self._sql.schema_version)
        except TopologyMissing:
            return 0
        found, known = row["version"], len(self._sql.migrations)
        if found > known:
            raise StoreMismatch(
                f"{self._database.name}: the tables {self._prefix}* are of version {found}, this release "
                f"knows version {known}. Upgrade atto, or use another table prefix"
            )
        return found

    async def _migrate(self) -> None:
        """Reads the version again, since another one may have migrated while this one waited for the lock."""
        async with self._database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", self._sql.lock)
            encoding = await connection.fetchval("SHOW server_encoding")
            if encoding != "UTF8":
                raise StoreMismatch(f"{self._database.name}: its encoding is {encoding}, sessions need UTF8")
            await connection.execute(self._sql.schema)
            found = await connection.fetchval(self._sql.schema_version)
            for version, script in enumerate(self._sql.migrations[found:], found + 1):
                await connection.execute(script)
                await connection.execute(self._sql.add_version, version)

    async def _reloaded(self, base: Snapshot) -> Snapshot:
        """The same snapshot with a token: it came from elsewhere, without one."""
        stored = await self.load(base.session)
        if stored is None or not is_newest(base, stored):
            raise conflict(base, gone=stored is None)
        return stored

    async def _conflict(self, key: bytes, base: Snapshot) -> ConcurrentWrite:
        """Why nothing was written: the session has moved on, or it is another one, or none."""
        place = base.token
        rows = await self._database.fetch(self._sql.generation, key)
        return conflict(
            base, gone=not rows or (place is not None and rows[0]["generation"] != place.generation)
        )

    async def _create(self, key: bytes, base: Snapshot, added: EncodedCommit) -> Snapshot:
        saved = base.after(added.commit)
        turn = Turn(saved.version, newest_run(saved), joined(added))
        created = await self._insert(key, saved, added, [turn])
        if created is None:
            raise conflict(base)
        return created

    async def _insert(
        self, key: bytes, snapshot: Snapshot, added: EncodedCommit, turns: list[Turn]
    ) -> Snapshot | None:
        """None, with nothing changed, if there is such a session."""
        state = added.applied_to(EMPTY_STATE)
        place = Place(uuid4(), state)
        columns = zip(*turns, strict=True)
        inserted = await self._database.fetch(
            self._sql.create,
            *(key, place.generation, snapshot.version, len(snapshot.messages), text(state)),
            *map(list, columns),
            *(text(added.continuation or EMPTY_CONTINUATION), journal(added)),
        )
        return at_place(snapshot, place) if inserted else None

    async def _append(self, key: bytes, base: Snapshot, place: Place, added: EncodedCommit) -> Snapshot:
        saved, state = base.after(added.commit), added.applied_to(place.state)
        arguments = (
            *(key, place.generation, base.version, len(saved.messages)),
            None if state is place.state else text(state),
            *(newest_run(saved), joined(added), place.fences),
            None if added.continuation is None else text(added.continuation),
        )
        if added.records or added.commit.drop_records:
            rows = (journal(added), added.commit.drop_records)
            appended = await self._database.fetch(self._sql.append_records, *arguments, *rows)
        else:
            appended = await self._database.fetch(self._sql.append, *arguments)
        if not appended:
            raise await self._conflict(key, base)
        return at_place(saved, place._replace(state=state))


def _key(session: str) -> bytes:
    """Raises `InvalidSessionId`."""
    encode_session(session)
    return session.encode()
