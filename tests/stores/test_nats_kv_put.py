"""Imports into the KV store, and deletes on a condition: what is written, what races and crashes leave."""

import json
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from atto.broker.jetstream import JetStream
from atto.protocol.errors import BrokerUnavailable, ConcurrentWrite, StoreUnavailable
from atto.protocol.sessions import Snapshot
from atto.stores import NatsKvStore
from atto.testing.store_samples import commit


class Wire(JetStream):
    """Before the next write that `hits`, `meanwhile` happens; then the write or its reply may be lost."""

    hits = staticmethod(lambda _subject, _data: False)
    meanwhile = None
    loses = None

    async def publish(self, subject, data, *, headers=None, timeout=5.0):
        hit = self.hits(subject, data)
        if hit:
            self.hits = Wire.hits
            if self.meanwhile is not None:
                await self.meanwhile()
        if hit and self.loses == "write":
            raise BrokerUnavailable("no answer")
        ack = await super().publish(subject, data, headers=headers, timeout=timeout)
        if hit and self.loses == "reply":
            raise BrokerUnavailable("no answer")
        return ack


def is_head(subject, data):
    return bool(data) and subject.count(".") == 2


def is_chunk(subject, _data):
    return subject.count(".") == 5


def is_marker(_subject, data):
    return not data


@pytest.fixture
async def store(jetstream, namespace):
    store = NatsKvStore(jetstream, namespace)
    await store.declare()
    return store


@pytest.fixture
async def wire(connection):
    async with Wire(connection) as wire:
        yield wire


@pytest.fixture
def wired(store, wire, namespace):
    return NatsKvStore(wire, namespace)


@pytest.fixture
def keys(jetstream, namespace):
    async def keys():
        info = await jetstream.api(f"STREAM.INFO.KV_{namespace}-sessions", {"subjects_filter": ">"})
        subjects = json.loads(info)["state"].get("subjects", {})
        return [subject.split("sessions.", 1)[1].split(".") for subject in subjects]

    return keys


def history(turns, size=200):
    snapshot = Snapshot(session="s")
    for number in range(turns):
        snapshot = snapshot.after(commit(f"run-{number}", f"question {number}", "a" * size, n=number))
    return snapshot


async def test_a_long_history_is_put_in_a_few_writes_and_loaded_in_a_few_reads(store, connection):
    made = history(5000)
    before = connection.stats["out_msgs"]
    put = await store.put(made)
    assert connection.stats["out_msgs"] - before <= 8
    before = connection.stats["out_msgs"]
    assert await store.load("s") == put
    assert connection.stats["out_msgs"] - before <= 2


async def test_the_head_of_an_imported_session_shows_its_newest_messages(store, jetstream, namespace):
    await store.put(history(500))
    stored = await jetstream.last(f"KV_{namespace}-sessions", f"$KV.{namespace}-sessions.s")
    head = json.loads(stored.data)
    assert (head["version"], head["state"], head.get("sealed", 0)) == (500, {"n": 499}, 0)
    blob, *recent = head["recent"]
    assert recent[-2]["content"] == [{"type": "text", "text": "question 499"}]
    assert blob["messages"] + len(recent) == 1000
    assert 10 < len(recent) <= 24


async def test_what_follows_an_import_costs_as_usual_and_leaves_the_import_alone(store, connection):
    snapshot, written = await store.put(history(500)), []
    for number in range(200):
        before = connection.stats["out_bytes"]
        snapshot = await store.save(snapshot, commit(f"more-{number}", "q", "a" * 200))
        written.append(connection.stats["out_bytes"] - before)
    assert max(written) < 40_000
    assert await store.load("s") == snapshot


@pytest.mark.parametrize("turns", [1, 500])
async def test_a_put_whose_reply_was_lost_is_found(store, wired, wire, turns):
    wire.hits, wire.loses = is_head, "reply"
    put = await wired.put(history(turns))
    assert await store.load("s") == put


@pytest.mark.parametrize("turns", [1, 500])
async def test_a_put_that_was_lost_leaves_nothing_and_can_be_repeated(store, wired, wire, turns):
    wire.hits, wire.loses = is_head, "write"
    with pytest.raises(StoreUnavailable):
        await wired.put(history(turns))
    assert await store.load("s") is None
    assert [session async for session in store.sessions()] == []
    put = await wired.put(history(turns))
    assert await store.load("s") == put


@pytest.mark.parametrize("loses", [None, "write"])
@pytest.mark.parametrize("turns", [1, 500])
async def test_a_put_that_another_one_overtook_leaves_no_trace(store, wired, wire, keys, turns, loses):
    others = []

    async def meanwhile():
        others.append(await store.put(replace(history(500), version=700)))

    wire.hits, wire.loses, wire.meanwhile = is_head, loses, meanwhile
    with pytest.raises(ConcurrentWrite, match="there already"):
        await wired.put(history(turns))
    assert [await store.load("s")] == others
    if loses is None:
        assert {key[1] for key in await keys() if len(key) > 1} == {others[0].token.head.generation}


async def test_a_delete_in_the_middle_of_a_put_takes_nothing_from_it(store, wired, wire, keys):
    wire.hits, wire.meanwhile = is_chunk, lambda: store.delete("s")
    put = await wired.put(history(500))
    assert await store.load("s") == put
    assert {key[1] for key in await keys() if len(key) > 1} == {put.token.head.generation}


async def test_a_commit_in_the_middle_of_a_delete_of_what_is_idle_is_kept(store, wired, wire):
    first, saved = await store.save(Snapshot(session="s"), commit("run-1")), []
    cut_off = datetime.now(UTC)

    async def meanwhile():
        saved.append(await store.save(first, commit("run-2")))

    wire.hits, wire.meanwhile = is_marker, meanwhile
    assert not await wired.delete("s", idle_since=cut_off)
    assert [await store.load("s")] == saved


async def test_a_commit_in_the_middle_of_a_delete_goes_with_the_session(store, wired, wire, keys):
    first = await store.save(Snapshot(session="s"), commit("run-1"))
    wire.hits, wire.meanwhile = is_marker, lambda: store.save(first, commit("run-2", "x" * 100_000))
    assert await wired.delete("s")
    assert await store.load("s") is None
    assert await keys() == [["s"]]


async def test_a_session_deleted_and_created_meanwhile_is_not_taken_for_the_idle_one(store, wired, wire):
    await store.save(Snapshot(session="s"), commit("run-1"))
    cut_off, created = datetime.now(UTC), []

    async def meanwhile():
        await store.delete("s")
        created.append(await store.save(Snapshot(session="s"), commit("new")))

    wire.hits, wire.meanwhile = is_marker, meanwhile
    assert not await wired.delete("s", idle_since=cut_off)
    assert [await store.load("s")] == created
