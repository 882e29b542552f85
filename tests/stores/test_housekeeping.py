"""Expiry, export and import, on every backend and from each to each other."""

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from atto.protocol.errors import ConcurrentWrite, InvalidSessionId
from atto.protocol.sessions import RECENT_RUNS, Commit, Snapshot
from atto.stores import (
    MemoryStore,
    NatsKvStore,
    NoSuchSession,
    NotImportable,
    PostgresStore,
    SqliteStore,
    expire,
    export_session,
    import_session,
)
from atto.testing.store_samples import EVERY_MESSAGE, ODD_STATE, ODD_TEXT, commit

BACKENDS = ("memory", "sqlite", "nats-kv", "postgres")
DAY = timedelta(days=1)


@pytest.fixture
async def stores(tmp_path, jetstream, namespace, postgres_dsn, table_prefix):
    kv = NatsKvStore(jetstream, namespace)
    await kv.declare()
    async with (
        SqliteStore(tmp_path / "sessions.db") as sqlite,
        PostgresStore(postgres_dsn, table_prefix=table_prefix) as postgres,
    ):
        yield {"memory": MemoryStore(), "sqlite": sqlite, "nats-kv": kv, "postgres": postgres}


@pytest.fixture(params=BACKENDS)
def store(stores, request):
    return stores[request.param]


def bare(snapshot):
    return replace(snapshot, token=None)


async def rich(store, session="s"):
    """A session of odd values, longer than what is remembered of its runs."""
    snapshot = await store.save(Snapshot(session=session), Commit(run_id=ODD_TEXT, messages=EVERY_MESSAGE))
    snapshot = await store.save(snapshot, commit("odd", ODD_TEXT, ODD_TEXT, **ODD_STATE))
    for number in range(RECENT_RUNS + 5):
        snapshot = await store.save(snapshot, commit(f"run-{number}", "q" * 1_000, "a", n=number))
    return snapshot


async def exported(store, session="s"):
    return [line async for line in export_session(store, session)]


async def test_sessions_that_are_idle_for_longer_are_gone(store):
    for session in ("a", "b", "c"):
        await store.save(Snapshot(session=session), commit("run"))
    assert await expire(store, DAY) == 0
    assert await expire(store, DAY, now=datetime.now(UTC) + 2 * DAY) == 3
    assert [session async for session in store.sessions()] == []
    with pytest.raises(ValueError, match="positive"):
        await expire(store, -DAY)


async def test_expiry_spares_what_was_used_since():
    now = datetime(2024, 1, 1, tzinfo=UTC)
    store = MemoryStore(clock=lambda: now)
    idle, used = [await store.save(Snapshot(session=name), commit("run")) for name in ("idle", "used")]
    now += 30 * DAY
    await store.save(used, commit("run-2"))
    assert await expire(store, 30 * DAY, now=now) == 0
    assert await expire(store, 29 * DAY, now=now) == 1
    assert [session async for session in store.sessions()] == ["used"]
    with pytest.raises(ConcurrentWrite):
        await store.save(idle, commit("run-2"))


async def test_a_turn_that_is_committed_between_listing_and_deleting_is_kept():
    now = datetime(2024, 1, 1, tzinfo=UTC)

    class Busy(MemoryStore):
        async def delete(self, session, *, idle_since=None):
            await self.save(await self.load(session), commit("meanwhile"))
            return await super().delete(session, idle_since=idle_since)

    store = Busy(clock=lambda: now)
    await store.save(Snapshot(session="s"), commit("run"))
    now += 30 * DAY
    assert await expire(store, DAY, now=now) == 0
    assert (await store.load("s")).version == 2


async def test_expiry_beside_turns_loses_none(store):
    """All are idle by this cut-off: each save finds its session as it was, or not at all."""

    async def converse(session):
        for number in range(10):
            snapshot = await store.load(session) or Snapshot(session=session)
            with contextlib.suppress(ConcurrentWrite):
                saved = await store.save(snapshot, commit(f"run-{number}"))
                assert (saved.version, len(saved.messages)) == (snapshot.version + 1, 2 * saved.version)

    async def expiring():
        for _ in range(10):
            await expire(store, timedelta(0), now=datetime.now(UTC) + DAY)

    await asyncio.gather(expiring(), *(converse(f"s-{number}") for number in range(5)))


@pytest.mark.parametrize("source", BACKENDS)
@pytest.mark.parametrize("target", BACKENDS)
async def test_a_session_moves_from_one_store_to_another(stores, source, target):
    saved = await rich(stores[source])
    lines = await exported(stores[source])
    await stores[source].delete("s")
    imported = await import_session(stores[target], lines)
    assert bare(imported) == bare(saved)
    assert await stores[target].load("s") == imported
    assert await exported(stores[target]) == lines
    following = await stores[target].save(imported, commit("next"))
    assert following.version == saved.version + 1
    assert await stores[target].load("s") == following


async def test_an_export_is_a_header_and_a_line_a_message(store):
    saved = await store.save(Snapshot(session="ann@example.com"), commit("run-1", "hi", "hello", n=1))
    header, *messages = map(json.loads, await exported(store, "ann@example.com"))
    assert header == {
        "format": 2,
        "session": "ann@example.com",
        "version": 1,
        "state": {"n": 1},
        "runs": [{"run_id": "run-1", "version": 1, "begin": 0, "end": 2}],
        "messages": 2,
    }
    assert [message["role"] for message in messages] == ["user", "assistant"]
    assert len(messages) == len(saved.messages)


async def test_an_export_goes_through_a_file(store, tmp_path):
    saved = await rich(store)
    path = tmp_path / "session.jsonl"
    with path.open("w", encoding="utf-8") as file:
        async for line in export_session(store, "s"):
            file.write(line)
    with path.open(encoding="utf-8") as file:
        copy = await import_session(store, file, session="copy")
    assert bare(copy) == replace(saved, session="copy", token=None)
    assert await store.load("copy") == copy
    assert bare(await import_session(store, export_session(store, "copy"), session="c")) == replace(
        saved, session="c", token=None
    )


async def test_an_import_never_touches_a_session_that_is_there(store):
    saved = await store.save(Snapshot(session="s"), commit("run"))
    lines = await exported(store)
    with pytest.raises(ConcurrentWrite, match="there already"):
        await import_session(store, lines)
    assert await store.load("s") == saved


async def test_a_session_that_is_not_there_cannot_be_exported(store):
    with pytest.raises(NoSuchSession, match="'nobody'"):
        await exported(store, "nobody")


def changed(number, **values):
    def change(lines):
        line = json.dumps({**json.loads(lines[number]), **values})
        return [*lines[:number], line, *lines[number + 1 :]]

    return change


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda _: [], "there is no line"),
        (lambda _: ["\n", " \n"], "there is no line"),
        (lambda lines: lines[1:], "line 1 is no header of an exported session"),
        (lambda lines: lines[:-1], "end after 3 of 4 messages: the export is not complete"),
        (lambda lines: lines[:1], "end after 0 of 4 messages"),
        (lambda lines: [*lines, lines[-1]], "line 6: there are more messages"),
        (lambda lines: [*lines[:3], lines[3][:20]], "line 4 is no message"),
        (lambda lines: [*lines[:3], "\n", "not JSON"], "line 5 is no message"),
        (lambda lines: [*lines[:2], "\ud800", *lines[3:]], "line 3 is no message"),
        (lambda lines: [*lines[:2], "[" * 100_000, *lines[3:]], "line 3 is no message: .*100 levels"),
        (lambda _: ["[" * 100_000], "line 1 is no header"),
        (changed(0, format=3), "line 1 has format 3; this release reads format 2"),
        (changed(0, session=1), "line 1 is no header: .*session"),
        (changed(0, session=""), "header: session id '' is empty"),
        (changed(0, version=0), "header: .*no commit"),
        (changed(0, version=1), "header: .*do not lead to version 1"),
        (
            changed(0, runs=[{"run_id": "x", "version": 1, "begin": 0, "end": 3}]),
            "header: .*do not follow one another",
        ),
        (changed(0, messages=-1), "line 2: there are more"),
        (changed(2, role="nobody"), "line 3 is no message: .*role"),
    ],
)
async def test_what_is_no_whole_export_is_refused_by_its_line(change, error):
    store = MemoryStore()
    first = await store.save(Snapshot(session="s"), commit("run-1"))
    await store.save(first, commit("run-2"))
    lines = await exported(store)
    await store.delete("s")
    with pytest.raises(NotImportable, match=error):
        await import_session(store, change(lines))
    assert [session async for session in store.sessions()] == []


async def test_an_import_under_what_is_no_session_id_is_refused():
    store = MemoryStore()
    await store.save(Snapshot(session="s"), commit("run"))
    with pytest.raises(InvalidSessionId):
        await import_session(store, await exported(store), session="")
