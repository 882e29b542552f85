"""Whether a stream may have lost what came to it: one that forgets as streams do."""

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from atto.broker.jetstream import JetStream
from atto.protocol.subjects import Subjects
from atto_workers import Topology
from atto_workers.run.evidence import StreamPast, _State, read_state

START = datetime(2026, 1, 1, tzinfo=UTC)
MAX_AGE = 100


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def ms(seconds: float) -> int:
    return int(at(seconds).timestamp() * 1000)


def past(messages: list[int], kept: list[int], now: int, *, created: int = 0, **config: Any) -> StreamPast:
    """Of a stream that took messages at these seconds, and has the last of them still."""
    gone = len(messages) - len(kept)
    state = _State(
        messages=len(kept),
        bytes=10 * len(kept),
        first_seq=gone + 1 if messages else 0,
        first_ts=at(kept[0]) if kept else datetime(1, 1, 1, tzinfo=UTC),
        last_ts=at(messages[-1]) if messages else datetime(1, 1, 1, tzinfo=UTC),
    )
    limits = {"max_age": MAX_AGE * 1_000_000_000, "max_bytes": -1, "max_msgs": -1, **config}
    return StreamPast(config=limits, state=state, created=at(created), ts=at(now))


times = st.lists(st.integers(1, 300), unique=True, max_size=12).map(sorted)


@given(times, st.integers(0, 200), st.integers(1, 300))
def test_what_has_expired_is_never_taken_for_what_never_was(messages, later, accepted):
    now = max([accepted, *messages]) + later
    kept = [second for second in messages if second > now - MAX_AGE]
    is_lost = any(second >= accepted and second not in kept for second in messages)
    if is_lost:
        assert past(messages, kept, now).may_have_lost(ms(accepted))


@given(times, st.integers(1, 300), st.integers(1, 8))
def test_what_was_pushed_out_is_never_taken_for_what_never_was(messages, accepted, most):
    now = max([accepted, *messages])
    for bound in ({"max_msgs": most}, {"max_bytes": 10 * most}):
        kept = messages[-most:]
        is_lost = any(second >= accepted and second not in kept for second in messages)
        if is_lost:
            assert past(messages, kept, now, max_age=0, **bound).may_have_lost(ms(accepted))


@given(times, st.integers(1, 300))
def test_a_purge_is_seen_as_long_as_nobody_has_spoken_since(messages, accepted):
    now = max([accepted, *messages])
    if any(second >= accepted for second in messages):
        assert past(messages, [], now, max_age=0).may_have_lost(ms(accepted))


@given(times, st.integers(1, 300), st.integers(0, MAX_AGE - 1))
def test_a_turn_that_waited_in_a_quiet_namespace_was_never_begun(messages, accepted, waited):
    before = [second for second in messages if second < accepted]
    now = accepted + waited
    kept = [second for second in before if second > now - MAX_AGE]
    assert past(before, kept, now).may_have_lost(ms(accepted)) is None


def test_a_stream_that_was_made_after_the_turn_tells_nothing_of_it():
    assert "made after" in (past([], [], 60, created=50).may_have_lost(ms(40)) or "")
    assert past([], [], 60, created=30).may_have_lost(ms(40)) is None


async def test_a_broker_tells_of_a_purge(jetstream: JetStream, namespace: str):
    await Topology(namespace).declare(jetstream)
    stream, subjects = Subjects(namespace).events_stream, Subjects(namespace)

    async def stored_at() -> int:
        info = await read_state(jetstream, stream)
        return int(info.state.last_ts.timestamp() * 1000)

    await jetstream.publish(subjects.event("s", "before"), b"{}")
    accepted = await stored_at() + 1
    assert (await read_state(jetstream, stream)).may_have_lost(accepted) is None
    await jetstream.publish(subjects.event("s", "r"), b"{}")
    while await stored_at() <= accepted:
        await jetstream.publish(subjects.event("s", "r"), b"{}")
    assert (await read_state(jetstream, stream)).may_have_lost(accepted) is None
    await jetstream.api(f"STREAM.PURGE.{stream}")
    assert "purged" in ((await read_state(jetstream, stream)).may_have_lost(accepted) or "")
    after = int((await read_state(jetstream, stream)).ts.timestamp() * 1000) + 1
    assert (await read_state(jetstream, stream)).may_have_lost(after) is None
