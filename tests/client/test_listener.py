"""A listener's patience with holes."""

import asyncio
import functools
import gc
import weakref
from types import SimpleNamespace

from atto.broker.alarms import Alarms
from atto.broker.jetstream import Stored
from atto.protocol import codec
from atto.protocol.events import EventBatch, TextDelta
from atto_client.listener import GAP_LIMIT, Listener
from tests.workers.virtual_time import in_virtual_time


def virtually(scenario):
    """Makes a test of a scenario."""

    @functools.wraps(scenario)
    def test():
        in_virtual_time(scenario)

    return test


class Stream:
    """What the stream holds."""

    def __init__(self):
        self.stored = []

    async def read(self, _stream, _subject, start=1):
        for stored in self.stored:
            if stored.sequence >= start:
                yield stored


class Live:
    def __init__(self, number):
        self.data = batch(number)


async def numbers(listener):
    return [event.seq for event in await listener.news()]


def batch(number):
    return codec.encode(EventBatch(events=(TextDelta(seq=number, step=1, text=str(number)),)))


@virtually
async def test_a_hole_that_was_filled_does_not_shorten_the_patience_with_the_next_one():
    """Although the listener was never idle in between: it is slower than the run."""
    stream = Stream()
    listener = Listener(stream, "EVENTS", "s", replay=False, alarms=Alarms(), on_close=lambda _: None)
    listener._hear(Live(1))
    listener._hear(Live(3))
    assert await numbers(listener) == [1]

    def fill():
        stream.stored = [Stored("s", number, batch(number), {}) for number in (1, 2, 3)]
        for number in range(4, 40):
            listener._hear(Live(number))

    loop = asyncio.get_running_loop()
    loop.call_later(0.1, fill)
    for number in await numbers(listener):
        await asyncio.sleep(0.04 * GAP_LIMIT)  # it takes its time
        if number == 38:
            listener._hear(Live(41))
    loop.call_later(0.05, listener._hear, Live(40))
    assert await numbers(listener) == [40, 41]
    await listener.stop_reading()


@virtually
async def test_words_that_the_broker_refused_do_not_hide_those_that_stand():
    """A successor's opening is heard although the journal had moved on: it reads again, and speaks later."""
    stream = Stream()
    listener = Listener(stream, "EVENTS", "s", replay=False, alarms=Alarms(), on_close=lambda _: None)
    former = EventBatch(attempt=1, events=deltas(1, 4))
    refused = EventBatch(attempt=7, since=2, events=deltas(2, 2))
    for heard in (EventBatch(attempt=1, events=deltas(1, 1)), refused, former):
        listener._hear(SimpleNamespace(data=codec.encode(heard)))
    assert [await numbers(listener), await numbers(listener)] == [[1], [2]]
    standing = EventBatch(attempt=7, since=5, events=deltas(5, 6))
    stream.stored = [
        Stored("s", number, codec.encode(each), {}) for number, each in enumerate((former, standing), 1)
    ]
    listener._hear(SimpleNamespace(data=codec.encode(standing)))
    loop = asyncio.get_running_loop()
    ringing = loop.create_task(ring(listener))
    async with asyncio.timeout(20):
        assert await numbers(listener) == [2, 3, 4]  # the 2 of the refused attempt is void
        assert await numbers(listener) == [5, 6]
    ringing.cancel()
    await listener.stop_reading()


@virtually
async def test_refused_words_that_leave_no_hole_do_not_hide_the_end():
    stream = Stream()
    listener = Listener(stream, "EVENTS", "s", replay=False, alarms=Alarms(), on_close=lambda _: None)
    former = EventBatch(attempt=1, events=deltas(1, 4))
    refused = EventBatch(attempt=7, since=3, events=deltas(3, 4))
    stream.stored = [Stored("s", 1, codec.encode(former), {})]
    for heard in (refused, former):
        listener._hear(SimpleNamespace(data=codec.encode(heard)))
    ringing = asyncio.get_running_loop().create_task(ring(listener))
    async with asyncio.timeout(20):
        assert await numbers(listener) == [1, 2, 3, 4]
        assert await numbers(listener) == [3, 4]
    assert listener.speaker(3) == 1
    ringing.cancel()
    await listener.stop_reading()


async def ring(listener):
    """As its alarm does."""
    while True:
        await asyncio.sleep(0.05)
        if listener.due < asyncio.get_running_loop().time():
            listener.ring()


def deltas(first, last):
    return tuple(TextDelta(seq=number, step=1, text="x") for number in range(first, last + 1))


async def test_a_closed_listener_is_gone_without_the_garbage_collector(jetstream, namespace):
    """Each run has one: cycles would make the collector a tenth of a client's work."""
    gone: list[bool] = []
    gc.disable()
    try:
        listener = Listener(
            jetstream,
            "EVENTS",
            f"{namespace}.event.s.r",
            replay=False,
            alarms=Alarms(),
            on_close=lambda _: None,
        )
        weakref.finalize(listener, gone.append, True)
        await listener.open()
        await listener.close()
        del listener
        assert gone
    finally:
        gc.enable()
