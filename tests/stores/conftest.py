"""One Postgres for all tests of stores, and tables of its own for each."""

import os
import secrets
from collections.abc import AsyncGenerator

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


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncGenerator[asyncpg.Connection]:
    """A plain connection, to look behind a store's back."""
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    await connection.close()


@pytest.fixture
async def table_prefix(database: asyncpg.Connection) -> AsyncGenerator[str]:
    """Tables of the test's own, which are gone in the end."""
    prefix = f"t_{secrets.token_hex(6)}_"
    yield prefix
    await database.execute(f"DROP TABLE IF EXISTS {prefix}commits, {prefix}sessions, {prefix}schema")
