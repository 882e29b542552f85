"""Which attempts count against a turn: those that ended with their worker, a few silent ones aside."""

import asyncio
from datetime import UTC, datetime

import pytest

from atto import ScriptedModel
from atto.protocol import codec, events
from atto.protocol.subjects import Subjects
from atto_client import RunFailed
from atto_workers.ownership import Ownership
from atto_workers.run.journal import SILENT
from atto_workers.run.runner import FORGIVEN

AT = datetime(2026, 1, 1, tzinfo=UTC)


def said(attempt: int, since: int, *, after_a_silent_one: bool) -> events.EventBatch:
    """What an attempt says that does not get far."""
    first = [events.RunInterrupted(seq=since, reason=SILENT)] if after_a_silent_one else []
    started = events.RunStarted(seq=since + len(first), attempt=attempt, time=AT, agent="tester")
    return events.EventBatch(events=(*first, started), attempt=attempt, since=since)


@pytest.mark.parametrize(
    ("is_silent", "forgiven", "fails"),
    [(True, 0, False), (True, FORGIVEN - 1, False), (True, FORGIVEN, True), (False, 0, True)],
)
async def test_an_attempt_whose_worker_fell_silent_does_not_count_a_few_times(
    worker, client, jetstream, namespace, is_silent: bool, forgiven: int, fails: bool
):
    """Its process may live, blocked by another session's tool; one that nobody listens for has ended."""
    async with worker(lambda _: "done"):
        pass
    run = await client.submit("s", "hi", run_id="r")
    since = 1
    for attempt in range(1, 6 + forgiven):
        batch = said(attempt, since, after_a_silent_one=attempt > 5)
        since += len(batch.events)
        await jetstream.publish(f"{namespace}.event.s.r", codec.encode(batch))
    subjects = Subjects(namespace)
    ghost = Ownership(jetstream, subjects, "ghost", max_ack_pending=10, replicas=1)
    for partition in (None, *range(4)):
        assert await ghost.claim(partition) is not None
    if is_silent:
        await jetstream.connection.subscribe(subjects.worker("ghost"))
    async with asyncio.timeout(30), worker(ScriptedModel.of(lambda _: "done")):
        if fails:
            with pytest.raises(RunFailed, match="5 times"):
                await run.result()
        else:
            assert (await run.result()).text == "done"
            told = [event async for event in client.attach("s", "r")]
            interrupted = [event.reason for event in told if isinstance(event, events.RunInterrupted)]
            assert interrupted == [SILENT] * (forgiven + 1)
