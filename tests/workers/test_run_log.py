"""Events on their way out: none is lost, whatever becomes of the connection, and a huge answer is cut."""

import asyncio
import json

import pytest
from nats.aio.client import Client as Connection

from atto.broker.jetstream import JetStream
from atto.protocol import codec
from atto.protocol.events import TextDelta
from atto.protocol.subjects import Subjects
from atto_workers import Topology
from atto_workers.run.journal import fold
from atto_workers.run.log import RunLog
from atto_workers.run.outbox import Outbox
from atto_workers.run.standing import GaveUp


async def stored(jetstream: JetStream, namespace: str):
    reading = jetstream.read(f"{namespace}-EVENTS", f"{namespace}.event.s.r")
    return [codec.decode_batch(message.data) async for message in reading]


def delta(log: RunLog, text: str) -> TextDelta:
    return TextDelta(seq=log.next, step=1, text=text)


async def test_events_of_one_tick_travel_together(jetstream: JetStream, namespace: str):
    await Topology(namespace).declare(jetstream)
    outbox = Outbox(jetstream)
    log = RunLog(outbox, Subjects(namespace).event("s", "r"))
    serving = asyncio.create_task(outbox.serve())
    for number in range(10):
        log.append(delta(log, str(number)))
    await asyncio.sleep(0)
    await log.confirm()
    serving.cancel()
    batch, *repeated = await stored(jetstream, namespace)
    assert [event.seq for event in batch.events] == list(range(1, 11))
    assert repeated in ([], [batch])  # what was published without waiting is known to be there


async def test_more_than_a_message_holds_goes_into_several(jetstream: JetStream, namespace: str):
    await Topology(namespace).declare(jetstream)
    log = RunLog(Outbox(jetstream), Subjects(namespace).event("s", "r"))
    for _ in range(10):
        log.append(delta(log, "x" * 300_000))
    await log.confirm()
    batches = await stored(jetstream, namespace)
    assert len(batches) == 4
    assert [event.seq for batch in batches for event in batch.events] == list(range(1, 11))


async def test_what_a_lost_connection_may_have_swallowed_is_published_again(
    connection: Connection, jetstream: JetStream, namespace: str
):
    await Topology(namespace).declare(jetstream)
    outbox = Outbox(jetstream)
    log = RunLog(outbox, Subjects(namespace).event("s", "r"))
    log.append(delta(log, "swallowed"))
    log._take()  # taken, and never arrived
    connection.stats["reconnects"] += 1
    log.append(delta(log, "arrived"))
    await log.confirm()
    batches = await stored(jetstream, namespace)
    assert [event.text for batch in batches for event in batch.events] == ["swallowed", "arrived"]
    assert fold(batches).next == 3


async def test_what_a_full_stream_refused_without_a_word_is_published_once_it_takes_events_again(
    jetstream: JetStream, namespace: str
):
    """One run waits for an answer, and so learns of it; another one only speaks."""
    await Topology(namespace).declare(jetstream)
    stream, subjects = f"{namespace}-EVENTS", Subjects(namespace)
    config = json.loads(await jetstream.api(f"STREAM.INFO.{stream}"))["config"]
    full = {"max_msgs": 1, "max_bytes": -1, "discard": "new"}
    await jetstream.publish(subjects.event("s", "another"), b"{}")
    await jetstream.api(f"STREAM.UPDATE.{stream}", {**config, **full})
    outbox = Outbox(jetstream)
    serving = asyncio.create_task(outbox.serve())
    with (
        RunLog(outbox, subjects.event("s", "r")) as speaking,
        RunLog(outbox, subjects.event("s", "w")) as log,
    ):
        speaking.append(delta(speaking, "refused"))
        await speaking.send()
        log.append(delta(log, "waits"))
        confirming = asyncio.create_task(log.confirm())
        while outbox.health._since is None:
            await asyncio.sleep(0)
        assert await stored(jetstream, namespace) == []
        await jetstream.api(f"STREAM.UPDATE.{stream}", config)
        async with asyncio.timeout(20):
            await confirming
            while not (batches := await stored(jetstream, namespace)):
                await asyncio.sleep(0.01)
        serving.cancel()
    assert [event.text for batch in batches for event in batch.events] == ["refused"]


async def test_after_a_reconnect_listeners_need_not_wait_for_the_end_of_the_run(
    jetstream: JetStream, namespace: str
):
    await Topology(namespace).declare(jetstream)
    outbox = Outbox(jetstream)
    serving = asyncio.create_task(outbox.serve())
    with RunLog(outbox, Subjects(namespace).event("s", "r")) as log:
        log.append(delta(log, "swallowed"))
        log._take()  # taken, and never arrived
        outbox.reconnected()
        async with asyncio.timeout(5):
            while not (batches := await stored(jetstream, namespace)):
                await asyncio.sleep(0)
    serving.cancel()
    assert [event.text for batch in batches for event in batch.events] == ["swallowed"]


async def test_a_silenced_log_says_nothing(jetstream: JetStream, namespace: str):
    await Topology(namespace).declare(jetstream)
    silenced = False
    log = RunLog(Outbox(jetstream), Subjects(namespace).event("s", "r"), is_silenced=lambda: silenced)
    log.append(delta(log, "said"))
    await log.confirm()
    silenced = True
    log.append(delta(log, "not said"))
    await log.send()
    with pytest.raises(GaveUp):
        await log.confirm()
    [batch] = await stored(jetstream, namespace)
    assert [event.text for event in batch.events] == ["said"]
