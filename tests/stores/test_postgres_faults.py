"""Bad days of the Postgres store: it is down, stalls, is cut off, or kept waiting."""

import asyncio
from urllib.parse import urlsplit

import pytest

from atto.protocol.errors import ConcurrentWrite, StoreUnavailable
from atto.protocol.sessions import Snapshot
from atto.stores.postgres import PostgresStore
from atto.testing.store_samples import commit
from tests.integration.proxy import Proxy
from tests.postgres import Postgres


@pytest.fixture
async def postgres():
    """A cluster of the test's own, to be stopped and killed."""
    async with Postgres() as postgres:
        yield postgres


def calls(store, base):
    return (
        store.load("s"),
        store.save(Snapshot(session="new"), commit("run")),
        store.save(base, commit("run")),
        store.put(Snapshot(session="put", version=1)),
        store.delete("s"),
        anext(store.sessions()),
    )


@pytest.mark.parametrize("mode", ["immediate", "fast"])
async def test_while_the_server_is_down_every_call_says_so_and_then_all_is_well_again(postgres, mode):
    async with PostgresStore(postgres.dsn, pool_size=3) as store:
        base = await store.save(Snapshot(session="s"), commit("run-1"))
        await asyncio.gather(*(store.load("s") for _ in range(10)))  # all connections are open
        for version in range(1, 3):
            await postgres.stop(mode)
            for call in calls(store, base):
                with pytest.raises(StoreUnavailable):
                    await call
            await postgres.start()
            assert await store.load("s") == base
            base = await store.save(base, commit("after"))
            assert base.version == version + 1
    await postgres.stop()
    with pytest.raises(StoreUnavailable):
        await PostgresStore(postgres.dsn).__aenter__()


async def test_saves_in_the_middle_of_a_crash_are_there_or_not(postgres):
    """Each writer goes on from what it finds, as a worker does; what was confirmed is never lost."""
    async with PostgresStore(postgres.dsn) as store:
        up, busy = asyncio.Event(), asyncio.Semaphore(0)

        async def write(session):
            snapshot, confirmed = Snapshot(session=session), 0
            while snapshot.version < 30:
                number = snapshot.version + 1
                try:
                    snapshot = await store.save(snapshot, commit(f"run-{number}", f"{number}"))
                    confirmed = number
                    busy.release()
                except StoreUnavailable:
                    await up.wait()
                    snapshot = await store.load(session) or Snapshot(session=session)
                    assert snapshot.version in {confirmed, confirmed + 1}
            return snapshot

        writers = [asyncio.create_task(write(f"s-{number}")) for number in range(5)]
        for _ in range(50):
            await busy.acquire()
        await postgres.stop("immediate")
        await postgres.start()
        up.set()
        for snapshot in await asyncio.gather(*writers):
            assert snapshot == await store.load(snapshot.session)
            asked = [message.text for message in snapshot.messages if message.role == "user"]
            assert asked == [str(number) for number in range(1, 31)]


@pytest.fixture
async def proxy(postgres_dsn):
    parts = urlsplit(postgres_dsn)
    async with Proxy(f"{parts.hostname}:{parts.port}") as proxy:
        yield proxy


@pytest.fixture
def proxied_dsn(postgres_dsn, proxy):
    parts = urlsplit(postgres_dsn)
    user = parts.netloc.rpartition("@")[0]
    return parts._replace(netloc=f"{user}@{proxy.url.rpartition('/')[2]}").geturl()


async def test_a_server_that_does_not_answer_costs_the_time_out_and_no_connection(proxied_dsn, proxy, tables):
    store = PostgresStore(proxied_dsn, table_prefix=tables.prefix, pool_size=2, timeout=0.5)
    async with store:
        base = await store.save(Snapshot(session="s"), commit("run-1"))
        proxy.stall()
        for call in calls(store, base):
            with pytest.raises(StoreUnavailable, match="no answer in time"):
                async with asyncio.timeout(5.0):
                    await call
        proxy.cut()
        proxy.flow()
        found = await store.load("s")
        assert found is None or found.version in {1, 2}


async def test_connections_that_are_cut_are_replaced(proxied_dsn, proxy, tables):
    async with PostgresStore(proxied_dsn, table_prefix=tables.prefix, pool_size=1) as store:
        base = await store.save(Snapshot(session="s"), commit("run-1"))
        task = asyncio.create_task(store.save(base, commit("run-2")))
        await asyncio.sleep(0)
        proxy.cut()
        with pytest.raises(StoreUnavailable):
            await task
        found = await store.load("s")
        assert found.version in {1, 2}
        assert (await store.save(found, commit("run-3"))).version == found.version + 1


@pytest.fixture
async def store(postgres_dsn, tables):
    store = PostgresStore(postgres_dsn, table_prefix=tables.prefix, pool_size=1, timeout=0.5)
    async with store:
        yield store


async def waiting_for_locks(tables):
    while not await tables.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        await asyncio.sleep(0)


async def test_a_save_that_waits_too_long_is_taken_back_and_the_connection_serves_on(store, tables):
    base = await store.save(Snapshot(session="s"), commit("run-1"))
    async with tables.connection.transaction():
        await tables.execute("SELECT FROM {p}sessions FOR UPDATE")
        with pytest.raises(StoreUnavailable, match="no answer in time"):
            await store.save(base, commit("run-2"))
        assert await store.load("s") == base
    assert (await store.save(base, commit("run-3"))).version == 2


async def test_a_save_that_is_cancelled_while_it_waits_is_taken_back(store, tables):
    base = await store.save(Snapshot(session="s"), commit("run-1"))
    async with tables.connection.transaction():
        await tables.execute("SELECT FROM {p}sessions FOR UPDATE")
        for _ in range(5):
            save = asyncio.create_task(store.save(base, commit("run-2")))
            await waiting_for_locks(tables)
            save.cancel()
            with pytest.raises(asyncio.CancelledError):
                await save
    assert (await store.save(base, commit("run-3"))).version == 2


async def test_a_save_that_waits_for_another_writer_loses(store, tables):
    base = await store.save(Snapshot(session="s"), commit("run-1"))
    async with tables.connection.transaction():
        await tables.execute("UPDATE {p}sessions SET version = version + 1")
        save = asyncio.create_task(store.save(base, commit("run-2")))
        await waiting_for_locks(tables)
    with pytest.raises(ConcurrentWrite):
        await save


async def test_a_pool_whose_connections_are_all_taken_is_unavailable(store, tables):
    base = await store.save(Snapshot(session="s"), commit("run-1"))
    async with tables.connection.transaction():
        await tables.execute("LOCK TABLE {p}sessions")
        save = asyncio.create_task(store.save(base, commit("run-2")))
        await waiting_for_locks(tables)
        loads = [store.load("s") for _ in range(3)]
        for result in await asyncio.gather(save, *loads, return_exceptions=True):
            assert isinstance(result, StoreUnavailable)
    assert await store.load("s") == base
