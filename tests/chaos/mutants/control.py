"""Mutants of who runs which turns, and when it stops."""

import asyncio
from typing import Any

from atto_workers import cancels, mailbox, steward
from atto_workers.gateway import retries
from atto_workers.run import acknowledging, log, opening, runner
from atto_workers.run.scope import RunScope
from tests.chaos.fail_points import replaced

ONE_IN = 20
"""Runs, of which one takes those behind it along."""


def newest_first() -> None:
    """Of the turns that wait in a session, the newest begins first."""

    def wrapper(deliver: Any) -> Any:
        def delivered(self: mailbox.Mailboxes, delivery: Any) -> None:
            deliver(self, delivery)
            queue = delivery.claim.mailboxes[delivery.token].queue
            queue.appendleft(queue.pop())

        return delivered

    replaced(mailbox.Mailboxes, "deliver", wrapper)


def known_taken_for_new() -> None:
    """Whoever comes first to a turn need not prove that its run is new."""

    async def at_once(self: opening.Opening, batch: bytes, on_proven: Any) -> None:
        self.is_sent = self.is_proven = True
        await self._jetstream.connection.publish(self._subject, batch)
        on_proven()

    replaced(opening.Opening, "send", lambda _: at_once)
    replaced(log.Fence, "headers", lambda _: None)


def fence_ignored() -> None:
    """A former owner that wakes up says and does what it was about to."""

    async def always(*_: Any) -> bool:
        return True

    replaced(log.Fence, "headers", lambda _: None)
    replaced(steward.Steward, "assure", lambda _: always)


def acks_not_repeated() -> None:
    """An acknowledgement that was lost with its connection is not sent again."""

    async def nothing(*_: Any, **__: Any) -> None:
        """It was sent once."""

    replaced(acknowledging.Acknowledgements, "_repeat", lambda _: nothing)


def two_at_a_time() -> None:
    """A turn that comes while another of its session runs begins at once."""
    kept: list[asyncio.Task[None]] = []

    def wrapper(deliver: Any) -> Any:
        def delivered(self: mailbox.Mailboxes, delivery: Any) -> None:
            deliver(self, delivery)
            box = delivery.claim.mailboxes[delivery.token]
            if box.running is not None and box.queue:
                delivery = box.queue.pop()
                beside = self._run_aside(delivery, RunScope(delivery.deadline()))
                kept.append(asyncio.create_task(beside))

        return delivered

    replaced(mailbox.Mailboxes, "deliver", wrapper)


def queue_dropped() -> None:
    """Now and then a run takes the turns along that wait behind it."""
    count = 0

    def wrapper(run: Any) -> Any:
        async def ran(self: runner.TurnRunner, delivery: Any, *arguments: Any) -> Any:
            nonlocal count
            ended = await run(self, delivery, *arguments)
            count += 1
            box = delivery.claim.mailboxes.get(delivery.token)
            if box is not None and count % ONE_IN == 0:
                box.queue.clear()
            return ended

        return ran

    replaced(runner.TurnRunner, "run", wrapper)


def cancels_unheard() -> None:
    """Nobody heeds cancellations."""
    replaced(cancels.Cancels, "_take", lambda _: lambda *_: None)


def never_retried() -> None:
    """A model's passing failure ends the run."""
    replaced(retries.RetryPolicy, "pause", lambda _: lambda *_, **__: None)


def never_leaves() -> None:
    """A worker that is told to stop waits for its runs, and then some."""

    def wrapper(release: Any) -> Any:
        async def released(self: steward.Steward) -> None:
            await release(self)
            await asyncio.sleep(3600)

        return released

    replaced(steward.Steward, "release_all", wrapper)
