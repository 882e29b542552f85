"""Openings and confirmations: taken only while the journal and its fence are as the attempt knows them."""

import asyncio
import gc
import weakref

import pytest

from atto.broker import requests
from atto.broker.jetstream import JetStream
from atto.protocol import codec
from atto.protocol.events import RunFailed, TextDelta, ToolStarted
from atto.protocol.subjects import Subjects
from atto_workers import Topology
from atto_workers.run.journal import read_progress
from atto_workers.run.log import Fence, RunLog
from atto_workers.run.opening import Opening
from atto_workers.run.outbox import Outbox
from atto_workers.run.outcome import now
from atto_workers.run.standing import Superseded


class Runs:
    """Logs of attempts at one run, as workers make them."""

    def __init__(self, jetstream: JetStream, namespace: str) -> None:
        self.subjects = Subjects(namespace)
        self.subject = self.subjects.event("s", "r")
        self.fence = self.subjects.fence_of("s", "r")
        self.jetstream = jetstream
        self.outbox = Outbox(jetstream)

    def log(self, attempt: int = 1, *, fence: int = 0, after: int = 0, since: int = 1) -> RunLog:
        opening = Opening(
            self.jetstream,
            self.subjects.events_stream,
            self.subject,
            after=after,
            health=self.outbox.health,
        )
        return RunLog(
            self.outbox,
            self.subject,
            attempt=attempt,
            since=since,
            fence=Fence(self.fence, fence),
            opening=opening,
        )

    async def next_attempt(self, number: int) -> RunLog:
        taken = await self.jetstream.publish(self.fence, b"")
        progress = await read_progress(self.jetstream, self.subjects.events_stream, self.subject)
        return self.log(number, fence=taken.sequence, after=progress.read_to, since=progress.next)

    async def stored(self) -> list[tuple[int, str]]:
        reading = self.jetstream.read(self.subjects.events_stream, self.subject)
        batches = [codec.decode_batch(message.data) async for message in reading]
        return [(batch.attempt, type(event).__name__) for batch in batches for event in batch.events]


@pytest.fixture
async def runs(jetstream: JetStream, namespace: str) -> Runs:
    await Topology(namespace).declare(jetstream)
    return Runs(jetstream, namespace)


def speak(log: RunLog, text: str = "word") -> None:
    log.append(TextDelta(seq=log.next, step=1, text=text))


def start_tool(log: RunLog) -> None:
    log.append(ToolStarted(seq=log.next, step=1, call_id="c", name="pay"), guarded=True)


def fail(log: RunLog) -> None:
    log.append(RunFailed(seq=log.next, time=now(), code="x", message="x"), guarded=True)


async def test_a_run_that_was_spoken_in_before_is_known_before_anything_else_is_heard(runs: Runs):
    first, second = runs.log(), runs.log()
    speak(first)
    await first.confirm()
    told = asyncio.Event()
    second.when_refused(told.set)
    speak(second)
    await second.send()
    speak(second)
    await second.send()
    async with asyncio.timeout(10):
        await told.wait()
    for ending in (second.opened(), second.confirm()):
        with pytest.raises(Superseded):
            await ending
    assert await runs.stored() == [(1, "TextDelta")]


@pytest.mark.parametrize("say", [start_tool, fail])
@pytest.mark.parametrize("has_spoken", [False, True])
async def test_what_a_former_owner_confirms_is_refused_once_a_successor_has_read(runs: Runs, say, has_spoken):
    former = runs.log()
    if has_spoken:
        speak(former)
        await former.confirm()
    successor = await runs.next_attempt(7)
    if not has_spoken:
        speak(successor)
        await successor.confirm()
    before = await runs.stored()
    say(former)
    await former.send()  # as the outbox does at any time
    with pytest.raises(Superseded):
        await former.confirm()
    await former.send()
    assert [name for _, name in await runs.stored()] == [name for _, name in before]
    fail(successor)
    await successor.confirm()
    assert (await runs.stored())[-1] == (7, "RunFailed")


async def test_a_successor_that_somebody_spoke_after_it_had_read_looks_again(runs: Runs):
    former = runs.log()
    successor = await runs.next_attempt(7)
    fail(former)
    opened = asyncio.create_task(former.opened())  # the first message of a run: nobody fenced that off
    await opened
    speak(successor)
    with pytest.raises(Superseded):
        await successor.confirm()
    assert await runs.stored() == [(1, "RunFailed")]
    progress = await read_progress(runs.jetstream, runs.subjects.events_stream, runs.subject)
    assert progress.terminal is not None


async def test_an_opening_whose_answer_was_lost_is_recognized(runs: Runs):
    log = runs.log()
    speak(log)
    await log.send()
    runs.jetstream._posted.clear()  # as a lost connection does
    log.repeat()
    speak(log)
    async with asyncio.timeout(10):
        await log.confirm()
    assert set(await runs.stored()) == {(1, "TextDelta")}
    progress = await read_progress(runs.jetstream, runs.subjects.events_stream, runs.subject)
    assert progress.next == 3


async def test_a_turn_costs_a_message_for_the_opening_and_one_for_the_effect(runs: Runs, monkeypatch):
    sent: list[str] = []
    publish = type(runs.jetstream.connection).publish

    async def counting(self, subject, *arguments, **options):
        if subject == runs.subject:
            sent.append(subject)
        await publish(self, subject, *arguments, **options)

    monkeypatch.setattr(type(runs.jetstream.connection), "publish", counting)
    monkeypatch.setattr(requests, "sent", lambda *_: False)  # so that all goes by `publish`
    log = runs.log()
    speak(log)
    await log.send()
    await log.opened()
    for _ in range(3):
        start_tool(log)
    await asyncio.gather(log.confirm(), log.confirm())
    assert len(sent) == 2


async def test_what_is_about_to_expire_is_published_again_with_its_fence(runs: Runs):
    log = await runs.next_attempt(3)
    speak(log)
    await log.confirm()
    before = await runs.jetstream.last(runs.subjects.events_stream, runs.fence)
    await log.keep(0.0)
    await log.send()
    start_tool(log)
    await log.confirm()
    assert await runs.stored() == [(3, "TextDelta"), (3, "TextDelta"), (3, "ToolStarted")]
    after = await runs.jetstream.last(runs.subjects.events_stream, runs.fence)
    assert before is not None
    assert after is not None
    assert after.sequence > before.sequence


async def test_a_run_leaves_no_cycle_behind(runs: Runs):
    """One for each run would keep the garbage collector busy."""
    gc.collect()
    gc.disable()
    try:
        with runs.log() as log:
            speak(log)
            await log.send()
            await log.opened()
            left = weakref.ref(log)
        del log
        runs.outbox._dirty.clear()  # nobody serves it here
        async with asyncio.timeout(20):
            while left() is not None:
                await asyncio.sleep(0.005)
    finally:
        gc.enable()
