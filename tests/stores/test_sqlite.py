import asyncio
import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta, timezone

import pytest
from msgspec.structs import replace

from atto.protocol.errors import ConcurrentWrite, NotStorable, StoreCorrupt
from atto.protocol.events import StateChange
from atto.protocol.messages import Message
from atto.protocol.sessions import Commit, RunRecord, Snapshot
from atto.stores.sqlite import SqliteStore
from atto.testing.store_contract import StoreContract
from atto.testing.store_samples import EVERY_MESSAGE, ODD_STATE, ODD_TEXT, SESSION_IDS, commit


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path):
    async with SqliteStore(path) as store:
        yield store


@pytest.fixture
def shell(path):
    """What another program sees and does, as `sqlite3 sessions.db` would."""
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        yield lambda sql, *values: connection.execute(sql, values).fetchall()


class TestSqliteStore(StoreContract):
    @pytest.fixture
    async def store(self, path):
        async with SqliteStore(path) as store:
            yield store

    @pytest.fixture
    async def other_store(self, store, path):
        async with SqliteStore(path, synchronous="NORMAL") as other:
            yield other


class Clock:
    def __init__(self):
        self.now = datetime(2024, 1, 1, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def aging(path, clock):
    async with SqliteStore(path, clock=clock) as store:
        yield store


async def committed(store, session, turns, size=100, first=0):
    snapshot = await store.load(session) or Snapshot(session=session)
    for number in range(first, first + turns):
        snapshot = await store.save(snapshot, commit(f"run-{number}", "q" * size, "a" * size, n=number))
    return snapshot


def bare(snapshot):
    return replace(snapshot, token=None)


async def test_a_person_can_read_the_file_with_the_shell(aging, shell):
    await committed(aging, "ann@example.com", 1, size=2)
    assert shell("SELECT session, version, length, updated, runs FROM sessions") == [
        (
            "ann@example.com",
            1,
            2,
            "2024-01-01T00:00:00.000000+00:00",
            '[{"run_id":"run-0","version":1,"begin":0,"end":2}]',
        )
    ]
    assert shell("SELECT * FROM messages WHERE session = 'ann@example.com' ORDER BY seq") == [
        ("ann@example.com", 0, '{"role":"user","content":[{"type":"text","text":"qq"}]}'),
        ("ann@example.com", 1, '{"role":"assistant","content":[{"type":"text","text":"aa"}]}'),
    ]
    assert shell("SELECT key, value FROM state") == [("n", "0")]


async def test_only_the_values_that_are_set_are_written_and_the_order_of_keys_is_kept(store, shell):
    first = await store.save(Snapshot(session="s"), commit("run-1", z=1, a="x" * 100_000, m=3))
    before = shell("SELECT rowid, value FROM state WHERE key = 'a'")
    change = StateChange(set={"m": 4, "b": 5}, unset=("z",))
    second = await store.save(first, Commit(run_id="run-2", messages=(), change=change))
    assert list(second.state) == ["a", "m", "b"] == list((await store.load("s")).state)
    assert shell("SELECT rowid, value FROM state WHERE key = 'a'") == before


async def test_a_commit_writes_what_it_adds_however_long_the_session_is(store, shell, path):
    wal = path.with_name("sessions.db-wal")

    async def written(turns, first):
        """Bytes of the file's growth and of the log, for `turns` commits."""
        shell("PRAGMA wal_checkpoint(TRUNCATE)")
        before = path.stat().st_size
        await committed(store, "s", turns, size=400, first=first)
        log = wal.stat().st_size
        shell("PRAGMA wal_checkpoint(TRUNCATE)")
        return path.stat().st_size - before, log

    await committed(store, "s", 40, size=400)
    growth_at_50, log_at_50 = await written(20, 40)
    await committed(store, "s", 430, size=400, first=60)
    growth_at_500, log_at_500 = await written(20, 490)
    assert 0 < growth_at_500 <= 1.5 * growth_at_50
    assert log_at_500 <= 1.5 * log_at_50


async def test_a_deleted_session_leaves_no_trace_in_the_file(path):
    async with SqliteStore(path) as store:
        kept = await store.save(Snapshot(session="kept"), commit("run-1"))
        secret = Snapshot(session="secret-session")
        for text in ("secret", "secret" * 20_000):
            secret = await store.save(secret, commit("secret-run", text, text, secret=text))
        assert await store.delete("secret-session")
    assert b"secret" not in path.read_bytes()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    async with SqliteStore(path) as store:
        assert await store.load("kept") == kept


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE messages SET message = '{' WHERE seq = 1",
        "DELETE FROM messages WHERE seq = 1",
        "UPDATE state SET value = ''",
        "UPDATE state SET key = CAST(x'ff' AS TEXT)",
        "UPDATE sessions SET runs = '[1]'",
    ],
)
async def test_rows_that_were_tampered_with_are_reported_for_their_session_only(store, shell, damage):
    await committed(store, "s", 2)
    shell(damage)
    other = await committed(store, "other", 1)
    with pytest.raises(StoreCorrupt, match="'s'"):
        await store.load("s")
    assert await store.load("other") == other


async def test_what_is_put_is_there_exactly_as_it_was(store):
    snapshot = Snapshot(
        session=ODD_TEXT[:60],
        version=70,
        messages=EVERY_MESSAGE,
        state=ODD_STATE,
        runs=(
            RunRecord(run_id="run-69", version=69, begin=0, end=2),
            RunRecord(run_id="run-70", version=70, begin=2, end=len(EVERY_MESSAGE)),
        ),
    )
    put = await store.put(snapshot)
    assert bare(put) == snapshot
    assert await store.load(snapshot.session) == put
    put.state.clear()
    assert (await store.load(snapshot.session)).state == ODD_STATE
    saved = await store.save(put, commit("run-71"))
    assert saved.version == 71
    assert await store.load(snapshot.session) == saved


async def test_what_is_put_onto_a_session_that_is_there_changes_nothing(store):
    saved = await committed(store, "s", 2)
    for snapshot in (saved, bare(saved), Snapshot(session="s", version=1)):
        with pytest.raises(ConcurrentWrite, match="there already"):
            await store.put(snapshot)
    assert await store.load("s") == saved
    results = await asyncio.gather(
        *(store.put(replace(saved, session="racers")) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, ConcurrentWrite) for result in results) == 4


async def test_a_session_that_was_put_is_another_one_than_that_which_was_deleted(store):
    saved = await committed(store, "s", 2)
    await store.delete("s")
    put = await store.put(saved)
    with pytest.raises(ConcurrentWrite):
        await store.save(saved, commit("from before"))
    assert await store.load("s") == put


async def test_what_cannot_be_put_is_refused(store):
    for snapshot in (
        Snapshot(session="s"),
        Snapshot(session="s", version=1, state={"bad": object()}),
        Snapshot(session="s", version=1, messages=(Message.user("\ud800"),)),
    ):
        with pytest.raises(NotStorable):
            await store.put(snapshot)
    assert await store.load("s") is None


async def test_a_snapshot_of_another_file_is_no_base(store, tmp_path):
    async with SqliteStore(tmp_path / "other.db") as other:
        base = await store.save(Snapshot(session="s"), commit("run-1"))
        await other.save(Snapshot(session="s"), commit("run-1"))
        with pytest.raises(ConcurrentWrite):
            await other.save(base, commit("run-2"))


async def test_delete_says_whether_something_was_removed(store):
    await committed(store, "s", 1)
    assert [await store.delete(session) for session in ("nobody", "s", "s")] == [False, True, False]


async def test_only_idle_sessions_are_deleted(aging, clock):
    saved = await committed(aging, "s", 1)
    at = clock.now
    clock.now += timedelta(days=30)
    put = await aging.put(replace(saved, session="put"))
    for idle_since in (at - timedelta(days=1), at):
        assert not await aging.delete("s", idle_since=idle_since)
    assert await aging.load("s") == saved
    assert not await aging.delete("put", idle_since=clock.now)
    assert not await aging.delete("nobody", idle_since=clock.now)
    just_after = (at + timedelta(microseconds=1)).astimezone(timezone(timedelta(hours=5)))
    assert await aging.delete("s", idle_since=just_after)
    assert await aging.load("s") is None
    assert await aging.load("put") == put


async def test_idle_sessions_are_listed_in_the_order_of_their_code_points(aging, clock):
    names = sorted({*SESSION_IDS, "\uffff", "\U0001f600", *(f"user-{number:04}" for number in range(1200))})
    for name in names[::2]:
        await aging.save(Snapshot(session=name), commit("run-1"))
    early = clock.now
    clock.now += timedelta(hours=1)
    for name in names[1::2]:
        await aging.save(Snapshot(session=name), commit("run-1"))
    assert [name async for name in aging.sessions()] == names
    idle = [name async for name in aging.sessions(idle_since=clock.now)]
    assert idle == names[::2]
    assert [name async for name in aging.sessions(after=idle[500], idle_since=clock.now)] == idle[501:]
    assert [name async for name in aging.sessions(idle_since=early)] == []
    await aging.save(await aging.load(idle[0]), commit("run-2"))
    assert [name async for name in aging.sessions(idle_since=clock.now)] == idle[1:]


async def test_sessions_may_be_deleted_while_they_are_listed(store):
    for number in range(1100):
        await store.put(Snapshot(session=f"{number:04}", version=1))
    listed = 0
    async for session in store.sessions():
        listed += await store.delete(session)
    assert listed == 1100
