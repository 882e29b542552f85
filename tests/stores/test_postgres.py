import asyncio
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest
from msgspec.structs import replace

from atto.protocol.errors import ConcurrentWrite, StoreCorrupt, StoreMismatch, TopologyMissing
from atto.protocol.messages import Message
from atto.protocol.sessions import RECENT_RUNS, Commit, RunRecord, Snapshot
from atto.stores import NotStorable
from atto.stores.postgres import PostgresStore
from atto.stores.postgres_errors import PostgresRefused
from atto.testing.store_contract import StoreContract
from atto.testing.store_samples import EVERY_MESSAGE, ODD_STATE, ODD_TEXT, SESSION_IDS, commit
from tests.stores.pooler import TransactionPooler


class _PostgresContract(StoreContract):
    @pytest.fixture
    async def store(self, dsn, table_prefix, options):
        async with PostgresStore(dsn, table_prefix=table_prefix, **options) as store:
            yield store

    @pytest.fixture
    async def other_store(self, store, dsn, table_prefix, options):
        async with PostgresStore(dsn, table_prefix=table_prefix, create_tables=False, **options) as other:
            yield other

    @pytest.fixture
    def dsn(self, postgres_dsn):
        return postgres_dsn

    @pytest.fixture
    def options(self):
        return {}


class TestPostgresStore(_PostgresContract):
    pass


class TestPostgresStoreBehindATransactionPooler(_PostgresContract):
    @pytest.fixture
    def dsn(self, pooled_dsn):
        return pooled_dsn

    @pytest.fixture
    def options(self):
        return {"statement_cache_size": 0}


class TestPostgresStoreInADatabaseThatIsSerializableByDefault(_PostgresContract):
    @pytest.fixture
    async def dsn(self, postgres_dsn):
        return f"{postgres_dsn}?options=-c%20default_transaction_isolation%3Dserializable"


@pytest.fixture
async def pooler(postgres_dsn):
    async with TransactionPooler(urlsplit(postgres_dsn).port) as pooler:
        yield pooler


@pytest.fixture
def pooled_dsn(postgres_dsn, pooler):
    parts = urlsplit(postgres_dsn)
    return parts._replace(netloc=f"{parts.username}@127.0.0.1:{pooler.port}").geturl()


class Tables:
    """The test's tables, behind the store's back: `{p}` is their prefix."""

    def __init__(self, connection, prefix):
        self.connection, self.prefix = connection, prefix

    async def execute(self, sql, *arguments):
        return await self.connection.execute(sql.replace("{p}", self.prefix), *arguments)

    async def fetch(self, sql, *arguments):
        return [tuple(row) for row in await self.connection.fetch(sql.replace("{p}", self.prefix), *arguments)]

    async def value(self, sql, *arguments):
        return await self.connection.fetchval(sql.replace("{p}", self.prefix), *arguments)


@pytest.fixture
def tables(database, table_prefix):
    return Tables(database, table_prefix)


@pytest.fixture
async def store(postgres_dsn, table_prefix):
    async with PostgresStore(postgres_dsn, table_prefix=table_prefix) as store:
        yield store


async def committed(store, session, turns, size=100):
    snapshot = Snapshot(session=session)
    for number in range(turns):
        snapshot = await store.save(snapshot, commit(f"run-{number}", "q" * size, "a" * size, n=number))
    return snapshot


async def test_ten_workers_may_create_the_tables_at_once(postgres_dsn, table_prefix, database):
    stores = [PostgresStore(postgres_dsn, table_prefix=table_prefix) for _ in range(10)]
    await asyncio.gather(*(store.__aenter__() for store in stores))
    try:
        saved = await committed(stores[0], "s", 3)
        await asyncio.gather(*(store.ensure_schema() for store in stores))
        assert [await store.load("s") for store in stores] == [saved] * 10
    finally:
        await asyncio.gather(*(store.__aexit__(None, None, None) for store in stores))
    assert await database.fetchval("SELECT array_agg(version) FROM {p}schema") == [1]


async def test_tables_of_a_newer_release_are_left_alone(postgres_dsn, table_prefix, store, database):
    await database.execute("INSERT INTO {p}schema (version) VALUES (2)")
    with pytest.raises(StoreMismatch, match="of version 2, this release knows version 1"):
        await PostgresStore(postgres_dsn, table_prefix=table_prefix).__aenter__()


async def test_who_may_not_create_tables_can_use_those_that_are_there(
    postgres_dsn, table_prefix, store, database
):
    role = f"{table_prefix}role"
    await database.execute(f"CREATE ROLE {role} LOGIN")
    await database.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    await database.execute("GRANT SELECT ON {p}schema TO {role}")
    parts = urlsplit(postgres_dsn)
    dsn = parts._replace(netloc=f"{role}:secret-word@{parts.hostname}:{parts.port}").geturl()
    try:
        with pytest.raises(PostgresRefused, match="permission denied"):
            await PostgresStore(dsn, table_prefix=f"{table_prefix}x").__aenter__()
        async with PostgresStore(dsn, table_prefix=table_prefix) as limited:
            with pytest.raises(PostgresRefused, match="permission denied for table") as refusal:
                await limited.load("s")
            await database.execute(f"GRANT ALL ON {table_prefix}sessions, {table_prefix}commits TO {role}")
            await committed(limited, "s", 2)
        assert "secret-word" not in str(refusal.value) + repr(limited)
    finally:
        await database.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_pool_that_was_handed_in_is_used_and_left_open(postgres_dsn, table_prefix):
    async def init(connection):
        for name in ("json", "jsonb"):
            await connection.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")

    async with asyncpg.create_pool(postgres_dsn, min_size=0, max_size=2, init=init) as pool:
        async with PostgresStore(pool, table_prefix=table_prefix) as store:
            saved = await store.save(Snapshot(session="s"), Commit(run_id=ODD_TEXT, messages=EVERY_MESSAGE))
            saved = await store.save(saved, commit("run-2", ODD_TEXT, ODD_TEXT, **ODD_STATE))
        assert await store.load("s") == saved
        assert await pool.fetchval("SELECT 1") == 1


async def test_a_save_and_a_load_are_one_round_trip_each(pooled_dsn, pooler, table_prefix):
    """Each statement is known to each connection: with a single one, the pooler is a plain proxy."""
    pooler.connections = 1
    async with PostgresStore(pooled_dsn, table_prefix=table_prefix, pool_size=1) as store:
        snapshot = await store.load("s") or await committed(store, "s", 2)
        before = pooler.round_trips
        for number in range(10):
            snapshot = await store.save(snapshot, commit(f"more-{number}", n=number))
        assert pooler.round_trips - before == 10
        assert await store.load("s") == snapshot
        assert pooler.round_trips - before == 11


async def test_behind_a_pooler_that_loses_statements_the_error_says_what_to_set(pooled_dsn, table_prefix):
    with pytest.raises(PostgresRefused, match="statement_cache_size=0"):
        async with PostgresStore(pooled_dsn, table_prefix=table_prefix, pool_size=1) as store:
            await committed(store, "s", 5)


@pytest.mark.parametrize("size", [10, 1_000, 10_000])
async def test_a_commit_costs_at_turn_500_what_it_costs_at_turn_50(store, database, size):
    written = []
    snapshot = Snapshot(session="s")
    for number in range(510):
        before = await database.fetchval("SELECT pg_current_wal_insert_lsn()")
        snapshot = await store.save(snapshot, commit(f"run-{number}", "q", "a" * size, n=number))
        written.append(
            await database.fetchval("SELECT (pg_current_wal_insert_lsn() - $1::pg_lsn)::bigint", before)
        )
    assert sorted(written[500:])[5] <= 1.5 * sorted(written[50:60])[5]


async def test_a_state_that_does_not_change_is_not_written_again(store, database):
    large = "".join(map(chr, range(0x4E00, 0x9000))) * 5
    snapshot = await store.save(Snapshot(session="s"), commit("run", large=large))
    before = await database.fetchval("SELECT pg_current_wal_insert_lsn()")
    snapshot = await store.save(snapshot, commit("run-2"))
    after = "SELECT (pg_current_wal_insert_lsn() - $1::pg_lsn)::bigint"
    assert await database.fetchval(after, before) < 10_000
    assert await store.load("s") == snapshot
    assert snapshot.state == {"large": large}


async def test_5000_turns_are_loaded_at_once(store):
    saved = await committed(store, "s", 5000)
    loop = asyncio.get_running_loop()
    start = loop.time()
    loaded = await store.load("s")
    assert loop.time() - start < 2.0  # it takes 0.05 s; machines that test are busy
    assert loaded == saved


async def test_a_person_can_read_and_query_what_is_stored(store, database, table_prefix):
    await committed(store, "ann@example.com", 3, size=2)
    row = await database.fetchrow(
        "SELECT encode(id, 'escape') AS id, version, messages, state->>'n' AS n FROM {p}sessions"
    )
    assert tuple(row) == ("ann@example.com", 3, 6, "2")
    turns = await database.fetch(
        "SELECT run->>'run_id' AS run, turn.messages->1->'content'->0->>'text' AS answer "
        "FROM {p}sessions JOIN {p}commits AS turn USING (generation) "
        "WHERE id = 'ann@example.com' ORDER BY turn.version"
    )
    assert [tuple(turn) for turn in turns] == [("run-0", "aa"), ("run-1", "aa"), ("run-2", "aa")]


async def test_a_session_deleted_by_hand_leaves_no_commits(store, database, table_prefix):
    saved = await committed(store, "s", 3)
    await database.execute("DELETE FROM {p}sessions WHERE id = 's'")
    assert await database.fetchval("SELECT count(*) FROM {p}commits") == 0
    with pytest.raises(ConcurrentWrite):
        await store.save(saved, commit("run"))


async def test_a_commit_that_is_missing_is_never_skipped(store, database, table_prefix):
    await committed(store, "s", 5)
    await database.execute("DELETE FROM {p}commits WHERE version = 3")
    with pytest.raises(StoreCorrupt, match="8 messages of 10"):
        await store.load("s")


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [("sessions", "state", "[]"), ("commits", "messages", "[1]"), ("commits", "run", "{}")],
)
async def test_what_is_no_snapshot_is_corrupt(store, database, table_prefix, table, column, value):
    await committed(store, "s", 5)
    await database.execute("UPDATE {p}{table} SET {column} = '{value}'")
    with pytest.raises(StoreCorrupt, match="'s'"):
        await store.load("s")


async def test_put_makes_the_session_exactly_as_told(store, table_prefix):
    snapshot = Snapshot(
        session="s",
        version=40,
        messages=EVERY_MESSAGE,
        state=ODD_STATE,
        runs=tuple(RunRecord(f"run {ODD_TEXT} {number}", number % 6 + 1) for number in range(RECENT_RUNS)),
    )
    put = await store.put(snapshot)
    assert replace(put, token=None) == snapshot
    assert await store.load("s") == put
    saved = await store.save(put, commit("more"))
    assert await store.load("s") == saved
    assert (saved.version, saved.runs[:-1]) == (41, snapshot.runs[1:])


async def test_put_of_a_session_without_runs_or_messages(store):
    for session, messages in (("a", ()), ("b", (Message.user("hi"),))):
        put = await store.put(Snapshot(session=session, version=7, messages=messages))
        assert await store.load(session) == put
        assert await store.load(session) == await store.load(session)
        saved = await store.save(replace(put, token=None), commit("run"))
        assert await store.load(session) == saved


async def test_put_of_a_session_that_exists_changes_nothing(store):
    saved = await committed(store, "s", 2)
    with pytest.raises(ConcurrentWrite, match="is there already"):
        await store.put(replace(saved, version=5))
    assert await store.load("s") == saved


@pytest.mark.parametrize(
    "snapshot", [Snapshot(session="s"), Snapshot(session="s", version=1, runs=(RunRecord("a", 0),) * 2)]
)
async def test_what_is_no_committed_snapshot_cannot_be_put(store, snapshot):
    with pytest.raises(NotStorable):
        await store.put(snapshot)
    assert await store.load("s") is None


async def test_of_racing_puts_and_saves_one_wins(store):
    snapshot = Snapshot(session="s", version=1)
    calls = [store.put(snapshot) for _ in range(8)]
    calls += [store.save(Snapshot(session="s"), commit("run")) for _ in range(8)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    (winner,) = [result for result in results if isinstance(result, Snapshot)]
    assert sum(isinstance(result, ConcurrentWrite) for result in results) == 15
    assert await store.load("s") == winner


async def test_delete_says_whether_there_was_a_session(store):
    await committed(store, "s", 2)
    assert [await store.delete("s") for _ in range(2)] == [True, False]


async def test_only_idle_sessions_are_listed_and_deleted(store, database, table_prefix):
    for session in ("idle", "busy"):
        await committed(store, session, 2)
    await database.execute(
        "UPDATE {p}sessions SET committed_at = now() - interval '30 days' WHERE id = 'idle'"
    )
    week_ago = datetime.now(UTC) - timedelta(days=7)
    assert [session async for session in store.sessions()] == ["busy", "idle"]
    assert [session async for session in store.sessions(idle_since=week_ago)] == ["idle"]
    assert not await store.delete("busy", idle_since=week_ago)
    assert await store.delete("idle", idle_since=week_ago)
    assert [session async for session in store.sessions()] == ["busy"]


async def test_a_session_that_a_commit_wakes_up_is_not_deleted_as_idle(store, database, table_prefix):
    """The delete waits for the row that a commit has locked, and must then look at it again."""
    saved = await committed(store, "s", 2)
    await database.execute("UPDATE {p}sessions SET committed_at = now() - interval '30 days'")
    async with database.transaction():
        await database.execute("UPDATE {p}sessions SET committed_at = now()")
        delete = asyncio.create_task(store.delete("s", idle_since=datetime.now(UTC) - timedelta(days=7)))
        while not await database.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
    assert not await delete
    assert await store.load("s") == saved


async def test_sessions_are_listed_by_code_point(store):
    ids = [*SESSION_IDS, *(f"user-{number}" for number in range(300)), "\uffff", "\U00010000"]
    for session in ids:
        await store.put(Snapshot(session=session, version=1))
    assert [session async for session in store.sessions()] == sorted(ids)
    for after in ("", "u", "\ud800", "user-2", "\U0010ffff"):
        assert [session async for session in store.sessions(after=after)] == sorted(
            session for session in ids if session > after
        )


async def test_a_store_may_be_closed_twice_or_before_it_is_open(postgres_dsn, table_prefix):
    store = PostgresStore(postgres_dsn, table_prefix=table_prefix)
    await store.__aexit__(None, None, None)
    for _ in range(2):
        async with store:
            assert await store.load("s") is None
            with pytest.raises(RuntimeError, match="open already"):
                await store.__aenter__()
            assert await store.load("s") is None
        await store.__aexit__(None, None, None)


@pytest.mark.parametrize("prefix", ["", "1a", "A", "a-b", 'a"; --', "a" * 41, "ü", "a\n"])
def test_a_prefix_that_is_not_safe_in_sql_is_refused(prefix):
    with pytest.raises(ValueError, match="table prefix"):
        PostgresStore("postgresql://host/db", table_prefix=prefix)


async def test_without_tables_every_call_says_so(postgres_dsn, table_prefix):
    async with PostgresStore(postgres_dsn, table_prefix=table_prefix, create_tables=False) as store:
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


async def test_a_database_that_is_not_utf_8_is_refused(postgres_dsn, table_prefix, database):
    name = f"{table_prefix}latin"
    await database.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(StoreMismatch, match="LATIN1"):
            await PostgresStore(urlsplit(postgres_dsn)._replace(path=f"/{name}").geturl()).__aenter__()
    finally:
        await database.execute(f"DROP DATABASE {name}")
