"""Confirmations of a run's events side by side, and beside the outbox: tools of one step do that.

The stream is one that acknowledges when the test lets it, which a real one does not do on demand.
"""

import asyncio

import pytest

from atto.protocol.events import TextDelta
from atto_workers.run import log as logs
from atto_workers.run.log import RunLog
from atto_workers.run.outbox import Outbox


class Stream:
    """Takes what is published once `answers` is set; what nobody waits for may be lost on its way."""

    def __init__(self):
        self.acknowledged = []
        self.posted = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.stats = {"reconnects": 0}
        self.max_payload = 1 << 20

    @property
    def connection(self):
        return self

    async def publish(self, _subject, batch, headers=None, timeout=None):
        if timeout is not None:
            await self.answers.wait()
            self.acknowledged.append(batch)

    async def send(self, _subject, _batch, headers=None):
        """Nobody waits for it."""

    async def publish_soon(self, _subject, batch, stored, headers=None, refused=None):
        self.posted.append((batch, stored))

    def has(self, text):
        return any(text.encode() in batch for batch in self.acknowledged)


@pytest.fixture
def stream():
    return Stream()


def say(log, text):
    log.append(TextDelta(seq=log.next, step=1, text=text))


async def begun(coroutine):
    """A task that has come to its first wait."""
    task = asyncio.ensure_future(coroutine)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_confirmations_side_by_side_do_not_publish_everything_again(stream):
    log = RunLog(Outbox(stream), "s")
    for number in range(200):
        say(log, f"word {number}")
        await log.send()
    stream.answers.clear()
    say(log, "first")
    first = await begun(log.confirm())
    say(log, "second")
    second = await begun(log.confirm())
    stream.answers.set()
    await asyncio.gather(first, second)
    assert stream.has("first")
    assert stream.has("second")
    assert len(stream.acknowledged) < 5


@pytest.mark.parametrize("is_replicated", [False, True])
async def test_what_the_outbox_sends_meanwhile_is_not_taken_for_confirmed(stream, is_replicated, monkeypatch):
    monkeypatch.setattr(logs, "PATIENCE", 0.05)
    log = RunLog(Outbox(stream, is_replicated=is_replicated), "s")
    say(log, "one")
    await log.send()
    stream.stats["reconnects"] += 1  # all of it is published again
    stream.answers.clear()
    first = await begun(log.confirm())
    say(log, "two")
    await log.send()  # by the outbox, and lost on its way
    stream.answers.set()
    await first
    assert not stream.has("two")
    await log.confirm()
    assert stream.has("two")


async def test_replicas_are_not_waited_for_because_others_speak(stream):
    log = RunLog(Outbox(stream, is_replicated=True), "s")
    say(log, "mine")
    await log.send()
    confirming = await begun(log.confirm())
    for number in range(20):  # of a tool at the same time, none of it acknowledged yet
        say(log, f"other {number}")
        await log.send()
    [_, stored] = stream.posted[0]
    stored()
    async with asyncio.timeout(logs.PATIENCE / 2):
        await confirming
    assert not stream.acknowledged  # nothing had to be published again
