"""Lost replies, crashes and races of the KV store, each brought about at the exact point where it hurts."""

import asyncio
import json

import pytest

from atto.broker.jetstream import JetStream
from atto.protocol.errors import BrokerUnavailable, ConcurrentWrite, StoreUnavailable
from atto.protocol.events import StateChange
from atto.protocol.sessions import RECENT_RUNS, Commit, Snapshot
from atto.stores import NatsKvStore
from atto.stores.encoding import encode_commit
from atto.stores.kv_bucket import KvBucket, WrongRevision
from atto.stores.kv_layout import Keys, beginning
from atto.stores.kv_writer import KvWrite
from atto.testing.store_samples import commit

LARGE = "q" * 100_000
SEGMENT_BYTES = 500


class LossyJetStream(JetStream):
    """Loses the next write of a head, or the reply to it.

    `meanwhile` happens before that shows.
    """

    def __init__(self, connection):
        super().__init__(connection)
        self.loses = None
        self.meanwhile = None

    async def publish(self, subject, data, *, headers=None, timeout=5.0):
        lost = self.loses
        if not (lost and data and subject.count(".") == 2):
            return await super().publish(subject, data, headers=headers, timeout=timeout)
        self.loses = None
        if lost == "reply":
            await super().publish(subject, data, headers=headers, timeout=timeout)
        if self.meanwhile is not None:
            await self.meanwhile()
        raise BrokerUnavailable("no answer")


@pytest.fixture
async def store(jetstream, namespace):
    store = NatsKvStore(jetstream, namespace, segment_bytes=SEGMENT_BYTES)
    await store.declare()
    return store


@pytest.fixture
async def wire(connection):
    async with LossyJetStream(connection) as jetstream:
        yield jetstream


@pytest.fixture
async def lossy(store, wire, namespace):
    return NatsKvStore(wire, namespace, segment_bytes=SEGMENT_BYTES)


@pytest.fixture
def keys(jetstream, namespace):
    async def keys():
        api = f"STREAM.INFO.KV_{namespace}-sessions"
        info = json.loads(await jetstream.api(api, {"subjects_filter": ">"}))
        subjects = info["state"].get("subjects", {})
        return sorted(subject.split("sessions.", 1)[1] for subject in subjects)

    return keys


@pytest.fixture
def write(jetstream, namespace):
    """A save that stops where the process may crash: `prepare` done, `finish` not."""

    def write(base, added):
        keys = Keys(namespace)
        place = base.token or beginning(keys.bucket, 0)
        bucket = KvBucket(jetstream, keys)
        return KvWrite(bucket, keys, base, place, encode_commit(added), segment_bytes=SEGMENT_BYTES)

    return write


async def committed(store, turns, text="hi"):
    snapshot = Snapshot(session="s")
    for number in range(turns):
        snapshot = await store.save(snapshot, commit(f"run-{number}", text, f"{number}"))
    return snapshot


@pytest.mark.parametrize("turns", [0, 1, 40])
@pytest.mark.parametrize("question", ["hi", LARGE])
async def test_a_save_whose_reply_was_lost_is_found(store, lossy, wire, turns, question):
    base = await committed(store, turns)
    wire.loses = "reply"
    saved = await lossy.save(base, commit("run", question))
    assert saved.version == turns + 1
    assert await store.load("s") == saved
    assert await lossy.save(saved, commit("next")) == await store.load("s")


@pytest.mark.parametrize("turns", [0, 1, 40])
@pytest.mark.parametrize("question", ["hi", LARGE])
async def test_a_save_that_was_lost_leaves_the_outcome_open(store, lossy, wire, turns, question):
    base = await committed(store, turns)
    wire.loses = "write"
    with pytest.raises(StoreUnavailable):
        await lossy.save(base, commit("run", question))
    assert await store.load("s") == (base if turns else None)
    saved = await lossy.save(base, commit("run", question))
    assert await store.load("s") == saved


@pytest.mark.parametrize("turns", [0, 1, 40])
async def test_a_lost_save_that_another_one_overtook_is_a_conflict(store, lossy, wire, turns):
    base = await committed(store, turns)
    others = []

    async def meanwhile():
        others.append(await store.save(base, commit("of another")))

    wire.loses, wire.meanwhile = "write", meanwhile
    with pytest.raises(ConcurrentWrite):
        await lossy.save(base, commit("run"))
    assert [await store.load("s")] == others


async def test_a_save_that_others_followed_gives_the_newest_snapshot(store, lossy, wire):
    base = await committed(store, 1)

    async def meanwhile():
        await store.save(await store.load("s"), commit("of another"))

    wire.loses, wire.meanwhile = "reply", meanwhile
    saved = await lossy.save(base, commit("run"))
    assert [record.run_id for record in saved.runs] == ["run-0", "run", "of another"]
    assert await lossy.save(saved, commit("next")) == await store.load("s")


@pytest.mark.parametrize("turns", [0, 1])
async def test_an_outcome_that_is_no_longer_on_record_stays_open(store, lossy, wire, turns):
    base = await committed(store, turns)

    async def meanwhile():
        for number in range(RECENT_RUNS):
            await store.save(await store.load("s"), commit(f"of another {number}"))

    wire.loses, wire.meanwhile = "reply", meanwhile
    with pytest.raises(StoreUnavailable):
        await lossy.save(base, commit("run", LARGE))
    assert (await store.load("s")).messages[2 * turns].text == LARGE


@pytest.mark.parametrize("lost", ["reply", "write"])
@pytest.mark.parametrize("turns", [0, 1])
async def test_a_session_deleted_meanwhile_is_not_revived(store, lossy, wire, lost, turns):
    base = await committed(store, turns)
    error = ConcurrentWrite if turns else StoreUnavailable
    wire.loses, wire.meanwhile = lost, lambda: store.delete("s")
    with pytest.raises(error):
        await lossy.save(base, commit("run"))
    assert await store.load("s") is None


async def test_a_run_that_was_saved_before_is_no_proof(store, lossy, wire):
    base = await committed(store, 1)
    wire.loses = "write"
    with pytest.raises(StoreUnavailable):
        await lossy.save(base, commit("run-0"))


async def test_a_broker_that_stays_away_leaves_the_outcome_open(store, lossy, wire):
    base = await committed(store, 1)
    wire.loses, wire.meanwhile = "reply", wire.connection.close
    with pytest.raises(StoreUnavailable, match="no answer"):
        await lossy.save(base, commit("run"))


async def test_a_crash_after_sealing_is_healed_by_the_next_save(store, write, keys):
    base = await committed(store, 40)
    crashed = await write(base, commit("crashed", "x" * 300)).prepare()
    assert crashed.head.segments > base.token.head.segments
    assert f"s.{crashed.head.generation}.{crashed.head.segments - 1}" in await keys()
    assert await store.load("s") == base

    saved = await store.save(base, commit("run", "x" * 300))
    assert saved.token.head.segments == crashed.head.segments
    assert await store.load("s") == saved


async def test_a_crash_of_a_writer_with_smaller_segments_is_healed(store, jetstream, namespace, write):
    base = await committed(store, 4)
    assert base.token.head.segments == 0
    bucket, keys = KvBucket(jetstream, Keys(namespace)), Keys(namespace)
    added = encode_commit(commit("crashed"))
    tiny = await KvWrite(bucket, keys, base, base.token, added, segment_bytes=40).prepare()
    assert tiny.head.segments == 1
    saved = base
    for number in range(40):
        saved = await store.save(saved, commit(f"run {number}"))
    assert saved.token.head.segments > 1
    assert await store.load("s") == saved


async def test_a_stale_sealer_finds_a_segment_of_messages_that_it_does_not_know(store, jetstream, namespace):
    base = await committed(store, 1)
    newest = base
    for number in range(40):
        newest = await store.save(newest, commit(f"newer {number}", "x" * 100))
    assert newest.token.head.segments > 1
    with pytest.raises(ConcurrentWrite):
        await NatsKvStore(jetstream, namespace, segment_bytes=40).save(base, commit("stale", "x" * 70, "x"))
    assert await store.load("s") == newest


@pytest.mark.parametrize("question", ["hi", "x" * 400, LARGE])
async def test_racing_sealers_lose_nothing(store, connection, namespace, keys, question):
    async with JetStream(connection) as jetstream:
        stores = [
            NatsKvStore(jetstream, namespace, segment_bytes=size) for size in (50, SEGMENT_BYTES, 2000, 1)
        ]
        snapshot = Snapshot(session="s")
        for round_ in range(40):
            saves = (
                each.save(snapshot, commit(f"run-{round_}-{number}", question, f"{round_} {number}"))
                for number, each in enumerate(stores)
            )
            results = await asyncio.gather(*saves, return_exceptions=True)
            (snapshot,) = [result for result in results if isinstance(result, Snapshot)]
            assert sum(isinstance(result, ConcurrentWrite) for result in results) == len(stores) - 1
            assert await store.load("s") == snapshot
    blobs = {key.split(".")[2] for key in await keys() if key.count(".") == 3}
    if question == LARGE:
        assert len(blobs) == 40, "the losers' messages are left behind"


@pytest.mark.parametrize("turns", [0, 10])
async def test_deleting_removes_every_key_of_the_session(store, keys, turns):
    base = await committed(store, turns, "x" * 400)
    for number in range(3):
        base = await store.save(base, commit(f"large-{number}", LARGE))
    await store.save(Snapshot(session="s2"), commit("run", LARGE))
    assert len(await keys()) > 5
    await store.delete("s")
    assert [key for key in await keys() if not key.startswith("s2")] == ["s"]
    assert [session async for session in store.sessions()] == ["s2"]


async def test_the_mark_of_a_deleted_session_expires(store, connection, namespace):
    await committed(store, 1)
    await store.delete("s")
    stream = connection.jetstream()
    marker = await stream.get_last_msg(f"KV_{namespace}-sessions", f"$KV.{namespace}-sessions.s")
    assert not marker.data
    expected = {"Nats-Expected-Last-Subject-Sequence": "1"}
    assert marker.headers == {"KV-Operation": "DEL", "Nats-TTL": "3600s", **expected}


async def test_a_delete_that_crashed_is_completed_by_the_next(store, jetstream, namespace, keys):
    await committed(store, 40)
    await KvBucket(jetstream, Keys(namespace)).mark(f"$KV.{namespace}-sessions.s")
    assert await store.load("s") is None
    assert len(await keys()) > 1
    await store.delete("s")
    assert await keys() == ["s"]


@pytest.mark.parametrize("turns", [0, 1, 40])
@pytest.mark.parametrize("again", [False, True])
async def test_a_write_that_a_delete_overtook_loses_and_leaves_nothing(store, write, keys, turns, again):
    base = await committed(store, turns)
    overtaken = write(base, commit("overtaken", LARGE))
    prepared = await overtaken.prepare()
    await store.delete("s")
    created = await store.save(Snapshot(session="s"), commit("new", LARGE)) if again else None
    with pytest.raises(WrongRevision):
        await overtaken.finish(prepared)
    await overtaken.clean_up()
    assert await store.load("s") == created
    assert len(await keys()) == (2 if again else 1)


async def test_a_late_segment_of_a_deleted_session_is_removed(store, write, keys):
    base = await committed(store, 40)
    await store.delete("s")
    late = write(base, commit("late", "x" * 400))
    prepared = await late.prepare()
    assert len(await keys()) > 1
    with pytest.raises(WrongRevision):
        await late.finish(prepared)
    await late.clean_up()
    assert await keys() == ["s"]


async def test_a_large_first_commit_survives_a_delete_that_was_slow(store, jetstream, namespace, write):
    """A delete removes what is older than its marker; what a creation has written must not be among it."""
    bucket = KvBucket(jetstream, Keys(namespace))
    head = f"$KV.{namespace}-sessions.s"
    creation = write(Snapshot(session="s"), commit("first", LARGE))
    prepared = await creation.prepare()
    revision = await bucket.mark(head)
    with pytest.raises(WrongRevision):
        await creation.finish(prepared)
    saved = await store.save(Snapshot(session="s"), commit("second", LARGE))
    await bucket.purge(f"{head}.>", until=revision)
    assert await store.load("s") == saved


async def test_a_large_first_commit_that_was_held_back_until_the_mark_expired_loses(
    store, jetstream, namespace, write
):
    creation = write(Snapshot(session="s"), commit("first", LARGE))
    prepared = await creation.prepare()
    await store.delete("s")
    expired = {"filter": f"$KV.{namespace}-sessions.s"}
    await jetstream.api(f"STREAM.PURGE.KV_{namespace}-sessions", expired)
    with pytest.raises(WrongRevision):
        await creation.finish(prepared)


async def test_a_slow_delete_spares_the_next_session_of_the_name(store, jetstream, monkeypatch):
    await committed(store, 40)
    created = []
    api = jetstream.api

    async def slow(name, request=None, **options):
        if name.startswith("STREAM.PURGE") and not created:
            created.append(await store.save(Snapshot(session="s"), commit("new", LARGE)))
        return await api(name, request, **options)

    monkeypatch.setattr(jetstream, "api", slow)
    await store.delete("s")
    assert [await store.load("s")] == created


@pytest.mark.parametrize("again", [False, True])
async def test_a_delete_in_the_middle_of_a_load_is_noticed(store, jetstream, monkeypatch, again):
    await committed(store, 40)
    created = [None]
    read_last = jetstream.read_last

    async def slow(stream, subjects):
        if created == [None]:
            await store.delete("s")
            created[0] = await store.save(Snapshot(session="s"), commit("new")) if again else "nothing"
        return await read_last(stream, subjects)

    monkeypatch.setattr(jetstream, "read_last", slow)
    loaded = await store.load("s")
    assert loaded == (created[0] if again else None)


async def test_loading_while_others_write_and_delete_sees_whole_snapshots(store, lossy):
    done = asyncio.Event()

    async def write():
        for life in range(5):
            snapshot = Snapshot(session="s")
            for number in range(20):
                added = commit(f"run-{number}", f"{life}", LARGE if number % 7 == 0 else "x" * 200)
                snapshot = await store.save(snapshot, added)
            await store.delete("s")
        done.set()

    writer = asyncio.ensure_future(write())
    seen = 0
    while not done.is_set():
        loaded = await lossy.load("s")
        if loaded is not None:
            seen += 1
            assert len(loaded.messages) == 2 * loaded.version
            assert len({message.text for message in loaded.messages[::2]}) == 1
    await writer
    assert seen


async def test_a_session_of_states_only_has_no_segments(store, keys):
    snapshot = Snapshot(session="s")
    for number in range(100):
        change = StateChange(set={"n": number})
        snapshot = await store.save(snapshot, Commit(run_id=f"{number}", messages=(), change=change))
    assert await keys() == ["s"]
    assert await store.load("s") == snapshot
