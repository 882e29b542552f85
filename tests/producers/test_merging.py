"""Batches that are void, repeated, late, senseless: every producer makes of them what the client does."""

import json
import random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from nats.aio.client import Client as Connection

from atto.broker.jetstream import JetStream
from atto.protocol.events import AnyEvent, EventBatch, RunCompleted, RunStarted, StepRestarted, TextDelta
from atto.protocol.messages import Message
from atto_client import Client
from atto_workers import Topology
from atto_workers.run.outcome import now

SENSELESS = [b"", b"{", b"[]", b'"text"', b"17", b'{"stream":"x","seq":1}', b"\xff"]
SEEDS = range(8)
EPOCH = 1_764_000_000_000_000  # attempts after the first are numbered by the time, in microseconds


def attempt(number: int, since: int, length: int, *, ends: bool, size: int = 0) -> list[EventBatch]:
    """What one attempt says, in batches of `size` events, or of several."""
    events: list[AnyEvent] = []
    for seq in range(since, since + length):
        if seq == since:
            event = RunStarted(seq=seq, time=now(), agent="a", attempt=number)
        elif seq == since + 1 and number > 1:
            event = StepRestarted(seq=seq, step=1, reason="again")
        else:
            event = TextDelta(seq=seq, step=1, text=f"{number}:{seq} ☃")
        events.append(event)
    if ends:
        answer = Message.assistant("done")
        events.append(RunCompleted(seq=since + length, time=now(), message=answer, version=1))
    batches: list[EventBatch] = []
    while events:
        taken = size or random.randint(1, 3)
        batches.append(EventBatch(attempt=number, since=since, events=tuple(events[:taken])))
        events = events[taken:]
    return batches


def a_history() -> list[EventBatch]:
    """Up to four attempts, of which only the last ends; each goes on somewhere in the one before it."""
    batches: list[EventBatch] = []
    number, since = 0, 1
    for left in reversed(range(random.randint(1, 4))):
        number = 1 if number == 0 else max(number, EPOCH) + random.randint(1, 3)
        length = random.randint(2, 8)
        batches += attempt(number, since, length, ends=left == 0)
        since = random.randint(max(1, since - 2), since + length)
    return batches


def disordered(batches: list[EventBatch]) -> list[EventBatch]:
    """Some are repeated, some come late."""
    batches = batches + random.sample(batches, k=min(2, len(batches)))
    for _ in range(random.randint(0, 4)):
        one, other = random.randrange(len(batches)), random.randrange(len(batches))
        batches[one], batches[other] = batches[other], batches[one]
    return batches


def seen(events: list[AnyEvent]) -> list[Any]:
    return msgspec.json.decode(msgspec.json.encode(events))


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_stored_history(producer, client: Client, jetstream: JetStream, namespace: str, seed: int):
    random.seed(seed)
    await Topology(namespace, partitions=1).declare(jetstream)
    for batch in disordered(a_history()):
        await jetstream.publish(f"{namespace}.event.s.r", msgspec.json.encode(batch))
    run = client.attach("s", "r")
    expected = seen([event async for event in run])
    assert expected[-1]["type"] == "run_completed"
    async with producer("--attach", "s", "r") as attached:
        assert await attached.end() == (expected, 0)
        assert attached.position == [run.position]


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_listener_comes_back(
    producer, client: Client, jetstream: JetStream, namespace: str, seed: int
):
    """To a place at which it may have been in any of the attempts, stored or not."""
    random.seed(seed)
    await Topology(namespace, partitions=1).declare(jetstream)
    history = a_history()
    for batch in history:
        await jetstream.publish(f"{namespace}.event.s.r", msgspec.json.encode(batch))
    position = f"{random.choice(history).attempt}-{random.randint(0, 12)}"
    expected = seen([event async for event in client.attach("s", "r", after=position)])
    async with producer("--attach", "s", "r", position) as attached:
        assert await attached.end() == (expected, 0)


async def test_deltas_that_have_expired_leave_no_hole(
    producer, client: Client, jetstream: JetStream, namespace: str
):
    await Topology(namespace, partitions=1).declare(jetstream)
    [begin, *_, end] = attempt(1, 1, 9, ends=True, size=1)
    end = replace(end, events=(replace(end.events[0], first=2),))
    for batch in (begin, end):
        await jetstream.publish(f"{namespace}.event.s.r", msgspec.json.encode(batch))
    async with producer("--attach", "s", "r") as attached:
        events, code = await attached.end()
    assert ([event["seq"] for event in events], code) == ([1, 10], 0)


async def test_what_was_heard_and_never_stored_does_not_hide_what_stands(
    producer, jetstream: JetStream, connection: Connection, namespace: str
):
    await Topology(namespace, partitions=1).declare(jetstream)
    subject = f"{namespace}.event.s.r"
    first, too_late = attempt(1, 1, 4, ends=True, size=1), attempt(EPOCH, 3, 1, ends=False)
    async with producer("--attach", "s", "r") as attached:
        for batch in first[:3]:
            await jetstream.publish(subject, msgspec.json.encode(batch))
        heard = [await attached.line() for _ in range(3)]
        # Heard by the listener, and refused by the stream.
        headers = {"Nats-Expected-Last-Sequence": "0"}
        await connection.publish(subject, msgspec.json.encode(too_late[0]), headers=headers)
        heard.append(await attached.line())
        for batch in first[3:]:
            await jetstream.publish(subject, msgspec.json.encode(batch))
        rest, code = await attached.end()
    assert code == 0
    assert latest(heard + rest) == seen([event for batch in first for event in batch.events])


async def test_no_position(producer):
    async with producer("--attach", "s", "r", "yesterday") as attached:
        said, code = await attached.error()
    assert code == 2
    assert "yesterday is not a position" in said


async def test_a_live_history_with_a_hole(
    producer, jetstream: JetStream, connection: Connection, namespace: str
):
    await Topology(namespace, partitions=1).declare(jetstream)
    first, second = attempt(1, 1, 4, ends=False), attempt(EPOCH, 3, 4, ends=True)
    subject = f"{namespace}.event.s.r"
    async with producer("--attach", "s", "r") as attached:
        await jetstream.publish(subject, msgspec.json.encode(first[0]))
        heard = [await attached.line() for _ in first[0].events]
        for batch in second[1:]:
            await jetstream.publish(subject, msgspec.json.encode(batch))
        for batch in [*first[1:], second[0]]:
            await jetstream.publish(subject, msgspec.json.encode(batch))
        rest, code = await attached.end()
    assert code == 0
    events = [event for batch in first for event in batch.events if event.seq < 3]
    events += [event for batch in second for event in batch.events]
    assert latest(heard + rest) == seen(events)


async def test_what_makes_no_sense_is_passed_over_and_what_is_new_is_passed_on(
    producer, jetstream: JetStream, namespace: str
):
    await Topology(namespace, partitions=1).declare(jetstream)
    subject = f"{namespace}.event.s.r"
    [*begin, end] = attempt(1, 1, 3, ends=True)
    for data in SENSELESS:
        await jetstream.publish(subject, data)
    for batch in [*begin, end]:
        body = {**msgspec.to_builtins(batch), "of_a_newer_release": True}
        await jetstream.publish(subject, msgspec.json.encode(body))
    async with producer("--attach", "s", "r") as attached:
        events, code = await attached.end()
    assert code == 0
    assert [event["seq"] for event in events] == [1, 2, 3, 4]


@pytest.mark.parametrize("version", [1, 3])
async def test_a_batch_of_another_version_is_not_guessed_at(
    producer, jetstream: JetStream, namespace: str, version: int
):
    await Topology(namespace, partitions=1).declare(jetstream)
    body = json.dumps({"v": version, "events": [{"type": "run_completed", "seq": 1}]}).encode()
    await jetstream.publish(f"{namespace}.event.s.r", body)
    async with producer("--attach", "s", "r") as attached:
        said, code = await attached.error()
    assert code == 2
    assert f"version {version}" in said


def latest(events: list[Any]) -> list[Any]:
    """What stands in the end: a number that was handed out again replaces the first."""
    said: list[Any] = []
    for event in events:
        del said[event["seq"] - 1 :]
        said.append(event)
    return said
