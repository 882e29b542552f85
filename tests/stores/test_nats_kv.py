import json

import nats.js.errors
import pytest
from msgspec.structs import replace

from atto.broker.jetstream import JetStream
from atto.protocol.errors import (
    ConcurrentWrite,
    StoreCorrupt,
    StoreUnavailable,
    TopologyMismatch,
    TopologyMissing,
)
from atto.protocol.events import StateChange
from atto.protocol.messages import Message
from atto.protocol.sessions import Commit, Snapshot
from atto.stores import NatsKvStore, NotStorable
from atto.stores.kv_layout import Place
from atto.stores.nats_kv import SEGMENT_BYTES
from atto.testing.store_contract import StoreContract
from atto.testing.store_samples import commit


class _KvContract(StoreContract):
    segment_bytes = (SEGMENT_BYTES, SEGMENT_BYTES)

    @pytest.fixture
    async def store(self, jetstream, namespace):
        store = NatsKvStore(jetstream, namespace, segment_bytes=self.segment_bytes[0])
        await store.declare()
        return store

    @pytest.fixture
    async def other_store(self, store, connection, namespace):
        async with JetStream(connection) as jetstream:
            yield NatsKvStore(jetstream, namespace, segment_bytes=self.segment_bytes[1])


class TestNatsKvStore(_KvContract):
    pass


class TestNatsKvStoreThatSealsAtEveryCommit(_KvContract):
    segment_bytes = (120, 120)


class TestNatsKvStoreThatSpillsAndSealsEveryCommit(_KvContract):
    segment_bytes = (1, 1)


class TestNatsKvStoresOfUnequalSettings(_KvContract):
    segment_bytes = (100, 1000)


@pytest.fixture
async def store(jetstream, namespace):
    store = NatsKvStore(jetstream, namespace)
    await store.declare()
    return store


async def committed(store, session, turns, size=100):
    snapshot = Snapshot(session=session)
    for number in range(turns):
        snapshot = await store.save(snapshot, commit(f"run-{number}", "q" * size, "a" * size, n=number))
    return snapshot


async def test_the_key_value_api_reads_the_newest_turns(store, connection, namespace):
    saved = await committed(store, "ann@example.com", 200)
    bucket = await connection.jetstream().key_value(f"{namespace}-sessions")
    head = json.loads((await bucket.get("ann=40example=2Ecom")).value)
    assert head["version"] == 200
    assert head["state"] == {"n": 199}
    assert head["recent"][-1] == {"role": "assistant", "content": [{"type": "text", "text": "a" * 100}]}
    assert head.get("sealed", 0) + len(head["recent"]) == len(saved.messages) == head["runs"][-1]["end"]
    assert head["segments"] > 1
    assert (await bucket.status()).history == 1
    await store.delete("ann@example.com")
    with pytest.raises(nats.js.errors.NotFoundError):
        await bucket.get("ann=40example=2Ecom")


async def test_a_20_megabyte_session_under_a_payload_limit_of_1_megabyte(store, connection):
    assert connection.max_payload == 1 << 20
    snapshot = Snapshot(session="s")
    large = Message.assistant("5 MB" * (5 << 18))
    for number, message in enumerate(
        [*[Message.assistant(f"{number}" * (1 << 19)) for number in range(10)], large, large]
    ):
        messages = (Message.user("more"), message, Message.assistant("done"))
        snapshot = await store.save(snapshot, Commit(run_id=f"run-{number}", messages=messages))
    snapshot = await store.save(snapshot, commit("many", "q" * 900_000, "a" * 900_000))
    for number in range(100):
        snapshot = await store.save(snapshot, commit(f"after-{number}", "q" * 20_000, "a" * 20_000))
    assert sum(len(message.text) for message in snapshot.messages) > 20_000_000
    loaded = await store.load("s")
    assert loaded == snapshot
    assert (await store.save(loaded, commit("last"))).version == 114


@pytest.mark.parametrize("size", [1, 100, 1_000, 10_000, 100_000])
async def test_a_commit_costs_at_turn_500_what_it_costs_at_turn_50(store, connection, size):
    written = []
    snapshot = Snapshot(session="s")
    for number in range(550):
        before = connection.stats["out_bytes"]
        snapshot = await store.save(snapshot, commit(f"run-{number}", "q", "a" * size, n=number))
        written.append(connection.stats["out_bytes"] - before)
    assert max(written[500:]) <= 1.5 * written[50]
    assert max(written) < 30_000 + 1.1 * size


async def test_5000_turns_are_loaded_in_a_few_round_trips(store, connection, namespace):
    saved = await committed(store, "s", 5000)
    async with JetStream(connection) as jetstream:
        before = connection.stats["out_msgs"]
        loaded = await NatsKvStore(jetstream, namespace).load("s")
        assert connection.stats["out_msgs"] - before <= 4
    assert loaded == saved


async def test_a_state_that_is_too_large_is_refused_with_what_to_do(store, jetstream, namespace):
    base = await committed(store, "s", 1)
    before = await keys(jetstream, namespace)
    change = StateChange(set={"large": "x" * (1 << 20)})
    too_large = Commit(run_id="run", messages=(Message.user("q" * 100_000),), change=change)
    with pytest.raises(NotStorable, match=r"reference in the state, or raise `max_payload`"):
        await store.save(base, too_large)
    assert await store.load("s") == base
    assert await keys(jetstream, namespace) == before
    almost = StateChange(set={"large": "x" * 1_000_000})
    saved = await store.save(base, Commit(run_id="run", messages=(), change=almost))
    assert await store.load("s") == saved


async def test_a_replica_that_lags_is_made_up_for_by_the_leader(store, jetstream, monkeypatch):
    saved = await committed(store, "s", 200)
    saved = await store.save(saved, commit("large", "q" * 2_000_000))
    read_last = jetstream.read_last

    async def lagging(stream, subjects):
        return (await read_last(stream, subjects))[:-2]

    monkeypatch.setattr(jetstream, "read_last", lagging)
    assert await store.load("s") == saved


@pytest.mark.parametrize(
    "head", [b"not JSON", b"{}", b"[]", b'{"v":2}', b"[" * 100_000, b'{"v":1,"version":"x"}']
)
async def test_what_is_no_head_is_corrupt(store, jetstream, namespace, head):
    await jetstream.publish(f"$KV.{namespace}-sessions.s", head)
    with pytest.raises(StoreCorrupt, match="'s'"):
        await store.load("s")


async def test_a_head_of_a_newer_release_is_left_alone(store, jetstream, namespace):
    await committed(store, "s", 1)
    subject = f"$KV.{namespace}-sessions.s"
    head = (await jetstream.last(f"KV_{namespace}-sessions", subject)).data
    await jetstream.publish(subject, head.replace(b'"v":2', b'"v":3'))
    with pytest.raises(StoreCorrupt, match="layout version 3"):
        await store.load("s")
    with pytest.raises(ConcurrentWrite):
        await store.save(Snapshot(session="s"), commit("run"))


@pytest.mark.parametrize("size", [100, 50_000])
async def test_a_piece_that_is_missing_is_never_skipped(store, jetstream, namespace, size):
    await committed(store, "s", 200, size)
    pieces = [key for key in await keys(jetstream, namespace) if key.count(".") > 2]
    await jetstream.api(f"STREAM.PURGE.KV_{namespace}-sessions", {"filter": pieces[len(pieces) // 2]})
    with pytest.raises(StoreCorrupt, match="missing"):
        await store.load("s")


async def test_segments_that_do_not_add_up_are_corrupt(store, jetstream, namespace):
    await committed(store, "s", 200)
    first, second, *_ = [key for key in await keys(jetstream, namespace) if key.count(".") > 2]
    stored = await jetstream.last(f"KV_{namespace}-sessions", second)
    await jetstream.publish(first, stored.data)
    with pytest.raises(StoreCorrupt, match="starts at message"):
        await store.load("s")


@pytest.mark.parametrize(("count", "error"), [("sealed", "segments end at"), ("end", "messages")])
async def test_a_head_whose_counts_do_not_add_up_is_corrupt(store, jetstream, namespace, count, error):
    await committed(store, "s", 200)
    subject = f"$KV.{namespace}-sessions.s"
    head = json.loads((await jetstream.last(f"KV_{namespace}-sessions", subject)).data)
    (head if count == "sealed" else head["runs"][-1])[count] += 1
    await jetstream.publish(subject, json.dumps(head).encode())
    with pytest.raises(StoreCorrupt, match=error):
        await store.load("s")


async def test_a_segment_that_does_not_follow_is_never_taken_over(store, jetstream, namespace):
    base = await committed(store, "s", 1)
    key = f"$KV.{namespace}-sessions.s.{base.token.head.generation}.0"
    await jetstream.publish(key, b'{"start":1,"end":2,"messages":[]}')
    tiny = NatsKvStore(jetstream, namespace, segment_bytes=10)
    with pytest.raises(StoreCorrupt, match="starts at 1"):
        await tiny.save(base, commit("run"))
    assert await store.load("s") == base


async def test_a_snapshot_of_another_namespace_is_no_base(store, jetstream, namespace):
    other = NatsKvStore(jetstream, f"{namespace}-b")
    await other.declare()
    base = await committed(other, "s", 1)
    mine = await store.save(Snapshot(session="s"), commit("mine"))
    assert mine.token.revision == base.token.revision
    with pytest.raises(ConcurrentWrite):
        await store.save(base, commit("run"))
    assert await store.load("s") == mine


async def test_foreign_keys_are_no_sessions(store, jetstream, namespace):
    await committed(store, "s", 1)
    for key in ("a b", "a=2eb", "=FF", "ümlaut"):
        await jetstream.publish(f"$KV.{namespace}-sessions.{key.replace(' ', '+')}", b"{}")
    assert [session async for session in store.sessions()] == ["s"]


async def test_without_a_bucket_every_call_says_so(jetstream, namespace):
    store = NatsKvStore(jetstream, namespace)
    base = Snapshot(session="s", version=1)
    for call in (
        store.load("s"),
        store.save(Snapshot(session="s"), commit("run")),
        store.save(base, commit("run")),
        store.save(Snapshot(session="s"), commit("run", "q" * 100_000)),
        store.delete("s"),
        anext(store.sessions()),
    ):
        with pytest.raises(TopologyMissing, match=f"'{namespace}-sessions'"):
            await call


async def test_without_a_connection_every_call_says_so(store, connection):
    base = await committed(store, "s", 1)
    await connection.close()
    for call in (
        store.load("s"),
        store.save(base, commit("run")),
        store.delete("s"),
        anext(store.sessions()),
    ):
        with pytest.raises(StoreUnavailable):
            await call


async def test_declaring_again_changes_nothing(store, jetstream, namespace):
    saved = await committed(store, "s", 1)
    await NatsKvStore(jetstream, namespace, segment_bytes=1).declare()
    tuned = await config(jetstream, namespace, max_bytes=1 << 30, description="tuned")
    await jetstream.api(f"STREAM.UPDATE.KV_{namespace}-sessions", tuned)
    await NatsKvStore(jetstream, namespace, replicas=3).declare()
    assert await store.load("s") == saved


async def test_a_bucket_that_cannot_serve_is_refused(store, jetstream, namespace):
    update = await config(jetstream, namespace, allow_direct=False, description="someone else's")
    await jetstream.api(f"STREAM.UPDATE.KV_{namespace}-sessions", update)
    with pytest.raises(TopologyMismatch, match="allow_direct"):
        await store.declare()


async def config(jetstream, namespace, **changes):
    info = json.loads(await jetstream.api(f"STREAM.INFO.KV_{namespace}-sessions"))
    return {**info["config"], **changes}


async def keys(jetstream, namespace):
    request = {"subjects_filter": ">"}
    info = json.loads(await jetstream.api(f"STREAM.INFO.KV_{namespace}-sessions", request))
    return sorted(info["state"].get("subjects", {}))


@pytest.mark.parametrize("segment_bytes", [1, 200, SEGMENT_BYTES])
async def test_a_token_may_be_packed_while_its_session_is_idle(jetstream, namespace, segment_bytes):
    store = NatsKvStore(jetstream, namespace, segment_bytes=segment_bytes)
    await store.declare()
    snapshot = Snapshot(session="s")
    for number in range(40):
        snapshot = await store.save(snapshot, commit(f"run-{number}", "x" * 100, f"{number}", n=number))
        token = Place.unpack(snapshot.token.pack())
        assert token == snapshot.token
        snapshot = replace(snapshot, token=token)
    loaded = await store.load("s")
    assert replace(loaded, token=None) == replace(snapshot, token=None)
