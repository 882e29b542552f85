"""Opening and closing the Postgres store: its tables, its rights, its address."""

import asyncio
from urllib.parse import quote, urlsplit

import pytest

from atto.protocol.errors import PostgresRefused, StoreMismatch, StoreUnavailable, TopologyMissing
from atto.protocol.sessions import Snapshot
from atto.stores.postgres import PostgresStore
from atto.testing.store_samples import commit

SECRET = "secret-word"  # noqa: S105 - nobody's


@pytest.fixture
def make_store(postgres_dsn, table_prefix):
    """A store, not entered; `dsn` is changed part by part."""

    def make(*, netloc=None, path=None, **options):
        parts = urlsplit(postgres_dsn)
        parts = parts._replace(netloc=netloc or parts.netloc, path=path or parts.path)
        return PostgresStore(parts.geturl(), **{"table_prefix": table_prefix, **options})

    return make


def as_role(postgres_dsn, role):
    return f"{role}:{SECRET}@{postgres_dsn.partition('://')[2].rpartition('@')[2].partition('/')[0]}"


async def test_ten_workers_may_create_the_tables_at_once(make_store, tables):
    stores = [make_store() for _ in range(10)]
    await asyncio.gather(*(store.__aenter__() for store in stores))
    try:
        saved = await stores[0].save(Snapshot(session="s"), commit("run"))
        await asyncio.gather(*(store.ensure_schema() for store in stores))
        assert [await store.load("s") for store in stores] == [saved] * 10
    finally:
        await asyncio.gather(*(store.__aexit__(None, None, None) for store in stores))
    assert await tables.rows("SELECT version FROM {p}schema") == [(1,), (2,)]


async def test_tables_of_a_newer_release_are_left_alone(make_store, tables):
    async with make_store():
        await tables.execute("INSERT INTO {p}schema (version) VALUES (3)")
    with pytest.raises(StoreMismatch, match=r"are of version 3, this release knows version 2\. Upgrade"):
        await make_store().__aenter__()


async def test_a_database_that_is_not_utf_8_is_refused(make_store, tables):
    name = f"{tables.prefix}latin"
    await tables.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(StoreMismatch, match="LATIN1"):
            await make_store(path=f"/{name}").__aenter__()
    finally:
        await tables.execute(f"DROP DATABASE {name}")


async def test_without_tables_every_call_says_so(make_store):
    async with make_store(create_tables=False) as store:
        for call in (
            store.load("s"),
            store.save(Snapshot(session="s"), commit("run")),
            store.save(Snapshot(session="s", version=1), commit("run")),
            store.put(Snapshot(session="s", version=1)),
            store.delete("s"),
            anext(store.sessions()),
        ):
            with pytest.raises(TopologyMissing, match="ensure_schema"):
                await call


async def test_who_may_not_create_tables_can_use_those_that_are_there(make_store, tables, postgres_dsn):
    role = f"{tables.prefix}role"
    await tables.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{SECRET}'")
    try:
        async with make_store():
            await tables.execute(f"GRANT SELECT ON {{p}}schema TO {role}")
        async with make_store(netloc=as_role(postgres_dsn, role)) as limited:
            with pytest.raises(PostgresRefused, match="permission denied for table") as refusal:
                await limited.load("s")
            await tables.execute(f"GRANT ALL ON {{p}}sessions, {{p}}commits, {{p}}records TO {role}")
            assert (await limited.save(Snapshot(session="s"), commit("run"))).version == 1
        assert SECRET not in str(refusal.value) + repr(limited)
    finally:
        await tables.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_an_unknown_role_and_an_unknown_database_are_refused(make_store, postgres_dsn):
    for store in (make_store(netloc=as_role(postgres_dsn, "no-such-role")), make_store(path="/no-such-db")):
        with pytest.raises(PostgresRefused, match=r"no-such-.* does not exist") as refusal:
            await store.__aenter__()
        assert SECRET not in str(refusal.value)


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql+asyncpg://ann:{SECRET}@127.0.0.1/db",
        f"postgresql://ann:{SECRET}@127.0.0.1:{SECRET}/db",
        f"postgresql://ann:a/{SECRET}@127.0.0.1:5432/db",
        f"host=127.0.0.1 password={SECRET}",
        f"postgresql://ann@127.0.0.1/db?sslmode={SECRET}",
        SECRET,
        "",
    ],
)
async def test_an_address_that_cannot_be_read_is_refused_without_a_word_of_it(dsn):
    store = PostgresStore(dsn, timeout=1.0)
    with pytest.raises((PostgresRefused, StoreUnavailable)) as refusal:
        await store.__aenter__()
    assert SECRET not in f"{refusal.value}{store!r}"
    assert SECRET not in str(refusal.value.__cause__)


@pytest.mark.parametrize("place", ["127.0.0.1:5432/db", "[::1]:5432/db", "db.example.com/db"])
def test_a_store_tells_its_place_and_no_password(place):
    for password in (SECRET, quote("secret-word @/:?#", safe="")):
        dsn = f"postgresql://ann:{password}@{place}?password={password}"
        assert repr(PostgresStore(dsn)) == f"PostgresStore('Postgres at {place}', table_prefix='atto_')"


async def test_a_store_may_be_closed_twice_or_before_it_is_open(make_store):
    store = make_store()
    await store.__aexit__(None, None, None)
    for _ in range(2):
        async with store:
            with pytest.raises(RuntimeError, match="open already"):
                await store.__aenter__()
            assert await store.load("s") is None
        await store.__aexit__(None, None, None)
        with pytest.raises(StoreUnavailable, match="not open"):
            await store.load("s")


@pytest.mark.parametrize("prefix", ["", "1a", "A", "a-b", 'a"; --', "a" * 41, "ü", "a\n"])
def test_a_prefix_that_is_not_safe_in_sql_is_refused(prefix):
    with pytest.raises(ValueError, match="table prefix"):
        PostgresStore("postgresql://host/db", table_prefix=prefix)
