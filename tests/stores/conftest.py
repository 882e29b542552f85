"""One Postgres for all tests of stores, and tables of its own for each."""

import os
import secrets
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import pytest

from tests.postgres import Postgres


@pytest.fixture(scope="session")
async def postgres_dsn() -> AsyncGenerator[str]:
    """`ATTO_TEST_POSTGRES`, or a cluster of the test run's own: do not stop or kill this one."""
    if dsn := os.environ.get("ATTO_TEST_POSTGRES"):
        yield dsn
        return
    async with Postgres() as postgres:
        yield postgres.dsn


class Tables:
    """The tables of a test, behind the store's back: `{p}` stands for their prefix."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.prefix = f"t_{secrets.token_hex(6)}_"

    async def execute(self, sql: str) -> None:
        await self.connection.execute(sql.replace("{p}", self.prefix))

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.connection.fetch(sql.replace("{p}", self.prefix))]

    async def value(self, sql: str) -> Any:
        return await self.connection.fetchval(sql.replace("{p}", self.prefix))


@pytest.fixture
async def tables(postgres_dsn: str) -> AsyncGenerator[Tables]:
    """Not there yet, and gone in the end."""
    connection = await asyncpg.connect(postgres_dsn)
    tables = Tables(connection)
    yield tables
    await tables.execute("DROP TABLE IF EXISTS {p}records, {p}commits, {p}sessions, {p}schema")
    await connection.close()


@pytest.fixture
def table_prefix(tables: Tables) -> str:
    return tables.prefix
