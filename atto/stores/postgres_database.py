"""The database as the Postgres store uses it: every call is bounded in time and leaves its pool healthy."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from typing import Any, cast

import asyncpg

from atto.protocol.errors import StoreUnavailable
from atto.stores.postgres_errors import FAILURES, RolledBack, translated

_ATTEMPTS = 8
_CLEAN_UP_SECONDS = 1.0
"""For taking back what was cancelled; after that the connection is cut, and the pool makes another."""

_HOST = r"(?:[^@/?#:,\[\]]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?"
_PLACE = re.compile(rf"postgres(?:ql)?://(?:[^@/?#]*@)?({_HOST}(?:,{_HOST})*(?:/[^@/?#]*)?)(?:\?[^@#]*)?")


class _Connection(asyncpg.Connection):
    """No state is left on a connection, so nothing needs to be reset: that would be one more round trip."""

    def get_reset_query(self) -> str:
        return ""


class Database:
    """Connections from a pool: its own, made at `open` from a DSN, or one handed in, which stays open.

    Nothing relies on the state of a connection, so there may be a pooler in between that gives each
    transaction another one. Every call raises `StoreUnavailable` if its outcome is unknown, and what else
    `translated` makes of errors.
    """

    def __init__(
        self, dsn_or_pool: str | asyncpg.Pool, *, pool_size: int, statement_cache_size: int, timeout: float
    ) -> None:
        self._dsn = dsn_or_pool if isinstance(dsn_or_pool, str) else None
        self._pool = None if isinstance(dsn_or_pool, str) else dsn_or_pool
        self._pool_size = pool_size
        self._statement_cache_size = statement_cache_size
        self._timeout = timeout
        self.name = "Postgres" if self._dsn is None else _name(self._dsn)

    async def open(self) -> None:
        """Connects nowhere yet. Raises RuntimeError if it is open."""
        if self._dsn is not None:
            if self._pool is not None:
                raise RuntimeError("the store is open already")
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=0,
                max_size=self._pool_size,
                statement_cache_size=self._statement_cache_size,
                timeout=self._timeout,
                command_timeout=self._timeout,
                connection_class=_Connection,
            )

    async def close(self) -> None:
        """Lets calls end, for as long as a call may take, then cuts them. No-op if it is not open."""
        if self._dsn is None or self._pool is None:
            return
        pool, self._pool = self._pool, None
        with contextlib.suppress(*FAILURES):  # then it is closed, without a goodbye
            async with asyncio.timeout(self._timeout):
                await pool.close()

    async def fetch(self, statement: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of one statement, which is a transaction of its own.

        One round trip, if the connection knows the statement. What the server undoes because of a
        transaction beside it (which may happen where the default isolation is a strict one) is run again.
        """
        for _ in range(_ATTEMPTS - 1):
            with contextlib.suppress(RolledBack):
                return await self._fetch(statement, arguments)
        return await self._fetch(statement, arguments)

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Any]:
        """A connection in a transaction, for as long as a call may take; each statement sees the newest."""
        async with self._connection() as connection, connection.transaction(isolation="read_committed"):
            yield connection

    async def _fetch(self, statement: str, arguments: tuple[Any, ...]) -> list[asyncpg.Record]:
        async with self._connection() as connection:
            return await connection.fetch(statement, *arguments)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncGenerator[Any]:
        pool = self._pool
        if pool is None:
            raise StoreUnavailable(f"{self.name}: the store is not open, use it as `async with`")
        deadline = asyncio.get_running_loop().time() + self._timeout
        try:
            async with asyncio.timeout_at(deadline):
                connection = cast("Any", await pool.acquire())
            try:
                async with asyncio.timeout_at(deadline):
                    yield connection
            finally:
                await _release(pool, connection)
        except FAILURES as error:
            known = isinstance(error, asyncpg.PostgresError | OSError)
            raise translated(error, self.name) from (error if known else None)


async def _release(pool: asyncpg.Pool, connection: Any) -> None:
    """What goes wrong here says nothing about the call: its connection is cut, and replaced when needed."""
    with contextlib.suppress(*FAILURES):
        await pool.release(connection, timeout=_CLEAN_UP_SECONDS)


def _name(dsn: str) -> str:
    """With hosts and database, where they can be told for certain from what may be secret."""
    place = _PLACE.fullmatch(dsn)
    return f"Postgres at {place[1]}" if place else "Postgres"
