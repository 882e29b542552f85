import asyncio
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import asyncpg
import pytest

from atto.protocol.errors import ConcurrentWrite, PostgresRefused, StoreCorrupt
from atto.protocol.sessions import Commit, Snapshot
from atto.stores import NotStorable
from atto.stores.postgres import PostgresStore
from atto.testing.store_contract import StoreContract
from atto.testing.store_samples import EVERY_MESSAGE, ODD_STATE, ODD_TEXT, commit
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


class TestPostgresStore(_PostgresContract):
    @pytest.fixture
    def dsn(self, postgres_dsn):
        return postgres_dsn

    @pytest.fixture
    def options(self):
        return {}


class TestPostgresStoreBehindATransactionPooler(_PostgresContract):
    @pytest.fixture
    def dsn(self, pooled_dsn):
        return pooled_dsn

    @pytest.fixture
    def options(self):
        return {"statement_cache_size": 0, "pool_size": 3, "timeout": 60.0}  # each client makes 3 connections


@pytest.fixture
async def pooler(postgres_dsn):
    async with TransactionPooler(urlsplit(postgres_dsn).hostname, urlsplit(postgres_dsn).port) as pooler:
        yield pooler


@pytest.fixture
def pooled_dsn(postgres_dsn, pooler):
    parts = urlsplit(postgres_dsn)
    user = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{user}@127.0.0.1:{pooler.port}").geturl()


@pytest.fixture
async def store(postgres_dsn, table_prefix):
    async with PostgresStore(postgres_dsn, table_prefix=table_prefix) as store:
        yield store


async def committed(store, session, turns, size=100):
    snapshot = Snapshot(session=session)
    for number in range(turns):
        snapshot = await store.save(snapshot, commit(f"run-{number}", "q" * size, "a" * size, n=number))
    return snapshot


async def written(tables, call):
    """What the call gives, and how many bytes it adds to the write-ahead log."""
    position = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint"
    before = await tables.value(position)
    result = await call
    return result, await tables.value(position) - before


async def test_a_save_and_a_load_are_one_round_trip_each(pooled_dsn, pooler, table_prefix):
    pooler.connections = 1  # a plain proxy
    async with PostgresStore(pooled_dsn, table_prefix=table_prefix, pool_size=1) as store:
        await committed(store, "s", 2)
        snapshot = await store.load("s")
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


async def test_a_pool_that_was_handed_in_is_used_and_left_open(postgres_dsn, table_prefix):
    async def init(connection):
        for name in ("json", "jsonb"):
            await connection.set_type_codec(name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog")

    async with asyncpg.create_pool(postgres_dsn, min_size=0, max_size=2, init=init) as pool:
        async with PostgresStore(pool, table_prefix=table_prefix) as store:
            first = Commit(run_id=ODD_TEXT, messages=EVERY_MESSAGE)
            saved = await store.save(Snapshot(session="s"), first)
            saved = await store.save(saved, commit("run-2", ODD_TEXT, ODD_TEXT, **ODD_STATE))
        assert await store.load("s") == saved
        assert await pool.fetchval("SELECT 1") == 1


async def test_under_a_strict_default_isolation_one_of_racing_writers_wins(postgres_dsn, table_prefix):
    settings = {"default_transaction_isolation": "serializable"}
    async with (
        asyncpg.create_pool(postgres_dsn, min_size=0, max_size=8, server_settings=settings) as pool,
        PostgresStore(pool, table_prefix=table_prefix) as store,
    ):
        base = Snapshot(session="s")
        for version in range(1, 6):
            racers = [store.save(base, commit(f"racer-{version}-{number}")) for number in range(16)]
            results = await asyncio.gather(*racers, return_exceptions=True)
            (base,) = [result for result in results if isinstance(result, Snapshot)]
            assert sum(isinstance(result, ConcurrentWrite) for result in results) == 15
            assert await store.load("s") == base
        others = await asyncio.gather(*(committed(store, f"s-{number}", 5) for number in range(16)))
        assert [snapshot.version for snapshot in others] == [5] * 16


@pytest.mark.parametrize("size", [10, 1_000, 10_000])
async def test_a_commit_costs_at_turn_500_what_it_costs_at_turn_50(store, tables, size):
    costs = []
    snapshot = Snapshot(session="s")
    for number in range(510):
        save = store.save(snapshot, commit(f"run-{number}", "q", "a" * size, n=number))
        snapshot, cost = await written(tables, save)
        costs.append(cost)
    assert sorted(costs[500:])[5] <= 1.5 * sorted(costs[50:60])[5]


async def test_a_state_that_does_not_change_is_not_written_again(store, tables):
    large = "".join(map(chr, range(0x4E00, 0x9000))) * 5
    snapshot = await store.save(Snapshot(session="s"), commit("run", large=large))
    snapshot, cost = await written(tables, store.save(snapshot, commit("run-2")))
    assert cost < 10_000
    assert await store.load("s") == snapshot
    assert snapshot.state == {"large": large}


async def test_5000_turns_are_loaded_at_once(store):
    saved = await committed(store, "s", 5000)
    loop = asyncio.get_running_loop()
    start = loop.time()
    loaded = await store.load("s")
    assert loop.time() - start < 2.0  # 0.05 s where nothing else runs
    assert loaded == saved


async def test_a_person_can_read_and_query_what_is_stored(store, tables):
    await committed(store, "ann@example.com", 2, size=2)
    sessions = "SELECT encode(id, 'escape'), version, messages, state->>'n' FROM {p}sessions"
    assert await tables.rows(sessions) == [("ann@example.com", 2, 4, "1")]
    turns = await tables.rows(
        "SELECT turn.run->>'run_id', turn.messages->1->'content'->0->>'text' "
        "FROM {p}sessions JOIN {p}commits AS turn USING (generation) "
        "WHERE id = 'ann@example.com' ORDER BY turn.version"
    )
    assert turns == [("run-0", "aa"), ("run-1", "aa")]


async def test_a_session_deleted_by_hand_leaves_no_commits(store, tables):
    saved = await committed(store, "s", 3)
    await tables.execute("DELETE FROM {p}sessions WHERE id = 's'")
    assert await tables.value("SELECT count(*) FROM {p}commits") == 0
    with pytest.raises(ConcurrentWrite):
        await store.save(saved, commit("run"))


async def test_a_commit_that_is_missing_is_never_skipped(store, tables):
    await committed(store, "s", 5)
    await tables.execute("DELETE FROM {p}commits WHERE version = 3")
    with pytest.raises(StoreCorrupt, match="8 messages of 10"):
        await store.load("s")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE {p}sessions SET state = '[]'",
        "UPDATE {p}commits SET messages = '[1]'",
        "UPDATE {p}commits SET run = '{}'",
    ],
)
async def test_what_is_no_snapshot_is_corrupt(store, tables, damage):
    await committed(store, "s", 5)
    await tables.execute(damage)
    with pytest.raises(StoreCorrupt, match="'s'"):
        await store.load("s")


_A_MONTH_AGO = "UPDATE {p}sessions SET committed_at = now() - interval '30 days'"


def a_week_ago():
    return datetime.now(UTC) - timedelta(days=7)


async def test_only_idle_sessions_are_listed_and_deleted(store, tables):
    for session in ("idle", "busy"):
        await committed(store, session, 2)
    await tables.execute(f"{_A_MONTH_AGO} WHERE id = 'idle'")
    assert [session async for session in store.sessions()] == ["busy", "idle"]
    assert [session async for session in store.sessions(idle_since=a_week_ago())] == ["idle"]
    assert not await store.delete("busy", idle_since=a_week_ago())
    assert await store.delete("idle", idle_since=a_week_ago())
    assert [session async for session in store.sessions()] == ["busy"]


async def test_a_session_that_a_commit_wakes_up_is_not_deleted_as_idle(store, tables):
    """The delete waits for the row that the commit has locked, and must then look at it again."""
    saved = await committed(store, "s", 2)
    await tables.execute(_A_MONTH_AGO)
    async with tables.connection.transaction():
        await tables.execute("UPDATE {p}sessions SET committed_at = now()")
        delete = asyncio.create_task(store.delete("s", idle_since=a_week_ago()))
        while not await tables.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
            await asyncio.sleep(0)
    assert not await delete
    assert await store.load("s") == saved


async def test_a_version_that_postgres_has_no_number_for_cannot_be_put(store):
    with pytest.raises(NotStorable):
        await store.put(Snapshot(session="s", version=2**63))
    assert await store.load("s") is None
