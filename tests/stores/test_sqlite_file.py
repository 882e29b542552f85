"""Opening, closing, foreign files, locks, and no room."""

import asyncio
import contextlib
import sqlite3
import time

import pytest

from atto.protocol.errors import StoreCorrupt, StoreMismatch, StoreUnavailable
from atto.protocol.sessions import Commit, Snapshot
from atto.stores.sqlite import SqliteStore
from atto.testing.store_samples import EVERY_MESSAGE, commit


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path):
    async with SqliteStore(path) as store:
        yield store


@pytest.fixture
def shell(path):
    """What another program does, as `sqlite3 sessions.db` would."""
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        yield lambda sql: connection.execute(sql).fetchall()


async def committed(store, session, turns, first=0):
    snapshot = await store.load(session) or Snapshot(session=session)
    for number in range(first, first + turns):
        snapshot = await store.save(snapshot, commit(f"run-{number}", n=number))
    return snapshot


async def test_a_store_is_opened_and_closed_as_often_as_one_likes(path):
    store = SqliteStore(path)
    await store.close()
    with pytest.raises(StoreUnavailable, match="is not open"):
        await store.load("s")
    for number in range(1, 4):
        await store.open()
        await store.open()
        saved = await committed(store, "s", 1, first=number)
        assert saved.version == number
        await store.close()
        await store.close()
    with pytest.raises(StoreUnavailable, match="is not open"):
        await store.save(saved, commit("run"))


async def test_closing_lets_the_calls_under_way_end(path):
    store = SqliteStore(path)
    await store.open()
    saves = [asyncio.ensure_future(committed(store, f"s-{number}", 1)) for number in range(20)]
    loads = [asyncio.ensure_future(store.load("s-0")) for _ in range(20)]
    await asyncio.sleep(0)  # one iteration: the loads of `committed` are under way
    await store.close()
    assert await asyncio.gather(*loads) == [None] * 20
    for result in await asyncio.gather(*saves, return_exceptions=True):
        assert isinstance(result, StoreUnavailable)


@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 5, 8, 20])
async def test_a_cancelled_open_or_close_leaves_nothing_open(path, iterations):
    store = SqliteStore(path)
    for call in (store.open, store.close):
        task = asyncio.ensure_future(call())
        for _ in range(iterations):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    await store.close()
    async with SqliteStore(path) as again:
        await committed(again, "s", 1)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


async def test_a_relative_path_stays_what_it_was_when_the_directory_changes(tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("sessions.db")
    monkeypatch.chdir("elsewhere")
    async with store:
        await committed(store, "s", 1)
    assert (tmp_path / "sessions.db").exists()


async def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(
        StoreUnavailable, match=r"nowhere/s\.db: unable to open .* its directory must be there"
    ):
        await SqliteStore(tmp_path / "nowhere" / "s.db").open()


@pytest.mark.parametrize("content", [b"hello", b"hello, world. " * 1000], ids=["short", "long"])
async def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(path, content):
    path.write_bytes(content)
    store = SqliteStore(path)
    with pytest.raises(StoreCorrupt, match="file is not a database"):
        await store.open()
    with pytest.raises(StoreUnavailable):
        await store.load("s")
    await store.close()
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "theirs", ["CREATE TABLE sessions (id)", "PRAGMA user_version = 3", "PRAGMA application_id = 7"]
)
async def test_a_database_of_another_program_is_refused_and_left_as_it_is(path, theirs):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(theirs)
    before = path.read_bytes()
    with pytest.raises(StoreMismatch, match="another program"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


async def test_a_file_of_a_newer_release_is_refused_and_left_as_it_is(path):
    async with SqliteStore(path) as store:
        await committed(store, "s", 3)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 3")
    before = path.read_bytes()
    with pytest.raises(StoreMismatch, match=r"schema version 3, this release of atto knows 2: upgrade atto"):
        await SqliteStore(path).open()
    assert path.read_bytes() == before


async def test_an_empty_file_is_a_new_store(path):
    path.touch()
    async with SqliteStore(path) as store:
        await committed(store, "s", 1)


@pytest.mark.parametrize(("synchronous", "level"), [("FULL", 2), ("NORMAL", 1)])
async def test_commits_are_synced_as_asked_for(path, synchronous, level):
    async with SqliteStore(path, synchronous=synchronous) as store:
        assert await store._read(lambda connection: connection.execute("PRAGMA synchronous").fetchone()) == (
            level,
        )
        assert await store._read(lambda connection: connection.execute("PRAGMA journal_mode").fetchone()) == (
            b"wal",
        )


async def test_a_full_file_is_an_explicit_error_and_goes_on_once_there_is_room(store, shell):
    saved = await committed(store, "s", 3)

    def limit(pages):
        return store._read(
            lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        )

    await limit(1)  # as low as it may be: the pages that there are
    for added in (commit("large", "x" * 100_000, n="y"), Commit(run_id="r", messages=EVERY_MESSAGE * 10)):
        with pytest.raises(StoreUnavailable, match="disk is full: nothing was committed"):
            await store.save(saved, added)
        assert await store.load("s") == saved
    assert shell("SELECT count(*) FROM messages") == [(6,)]
    await limit(1_000_000)
    assert (await store.save(saved, commit("large", "x" * 100_000))).version == 4
    assert shell("PRAGMA integrity_check") == [("ok",)]


async def test_another_writer_is_waited_for_without_blocking_the_loop(path, store, shell):
    saved = await committed(store, "s", 1)
    shell("BEGIN IMMEDIATE")
    save = asyncio.ensure_future(store.save(saved, commit("run-2")))
    longest, iterations, begun = 0.0, 0, time.monotonic()
    while time.monotonic() - begun < 0.3:
        before = time.monotonic()
        await asyncio.sleep(0.001)
        longest, iterations = max(longest, time.monotonic() - before), iterations + 1
    assert not save.done()
    assert longest < 1.0  # a loop that waits for the lock would wait for 5 s
    assert iterations > 10
    shell("COMMIT")
    assert (await save).version == 2


async def test_opening_waits_for_a_writer_only_where_it_has_to(path, shell):
    async with SqliteStore(path) as store:
        await committed(store, "s", 1)
        shell("BEGIN IMMEDIATE")
        async with SqliteStore(path) as other:
            assert (await other.load("s")).version == 1
        shell("COMMIT")
    assert shell("PRAGMA journal_mode = DELETE") == [("delete",)]  # as a crash in the first open leaves it
    shell("BEGIN IMMEDIATE")
    opening = asyncio.ensure_future(store.open())
    assert await asyncio.wait({opening}, timeout=0.1) == (set(), {opening})
    shell("COMMIT")
    await opening
    await committed(store, "s", 1, first=1)
    await store.close()


async def test_who_cannot_open_the_file_in_time_may_try_again(path, shell):
    shell("BEGIN EXCLUSIVE")
    store = SqliteStore(path, busy_seconds=0.05)
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.open()
    shell("COMMIT")
    async with store:
        await committed(store, "s", 1)


async def test_who_is_locked_out_is_told_in_time_and_so_are_those_behind(path, shell):
    async with SqliteStore(path, busy_seconds=0.3) as store:
        saved = await committed(store, "s", 1)
        shell("BEGIN IMMEDIATE")
        begun = time.monotonic()
        calls = [store.save(saved, commit(f"run-{number}")) for number in range(10)]
        results = await asyncio.gather(*calls, store.delete("s"), store.load("s"), return_exceptions=True)
        assert 0.25 < time.monotonic() - begun < 2.0
        assert results[-1] == saved
        for result in results[:-1]:
            assert isinstance(result, StoreUnavailable)
            assert "locked by another writer: nothing was committed" in str(result)
        shell("COMMIT")
        assert (await store.save(saved, commit("run"))).version == 2


async def test_readers_do_not_wait_for_a_writer(store, shell):
    saved = await committed(store, "s", 2)
    shell("BEGIN IMMEDIATE")
    shell("DELETE FROM messages")
    assert await store.load("s") == saved
    assert [name async for name in store.sessions()] == ["s"]
    shell("ROLLBACK")
