"""Mailboxes: the turns of one session run strictly one after another, different sessions side by side."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from atto_workers.delivery import Claim, ClaimState, Delivery
from atto_workers.passivation import IdleSessions, Resident
from atto_workers.run.scope import RunScope, StopReason


class Runner(Protocol):
    """Runs one turn to its end: terminal event and acknowledgement, or silence if it was stopped."""

    async def run(self, delivery: Delivery, resident: Resident, scope: RunScope) -> None:
        """`scope` stops it; `resident` holds the session before and after."""
        ...


class Mailbox:
    """The turns of one session that this worker holds."""

    def __init__(self, claim: Claim, token: str) -> None:
        self.claim = claim
        self.token = token
        self.queue: deque[Delivery] = deque()
        self.running: RunScope | None = None
        self.idle = asyncio.Event()


class Mailboxes:
    """Hands deliveries to their sessions' mailboxes, each served by a task of its own while it is not empty.

    `limit`: turns that run at one time, over all sessions. `on_finished` is told of every delivery that is no
    longer held.
    """

    def __init__(
        self,
        runner: Runner,
        idle_sessions: IdleSessions,
        tasks: asyncio.TaskGroup,
        *,
        limit: int,
        on_finished: Callable[[Delivery], None],
    ) -> None:
        self._runner = runner
        self._idle_sessions = idle_sessions
        self._tasks = tasks
        self._slots = asyncio.Semaphore(limit)
        self._on_finished = on_finished

    def deliver(self, delivery: Delivery) -> None:
        """Queues a turn. Turns of a session must come in stream order."""
        claim = delivery.claim
        claim.held[delivery.sequence] = delivery
        mailbox = claim.mailboxes.get(delivery.token)
        if mailbox is None:
            mailbox = claim.mailboxes[delivery.token] = Mailbox(claim, delivery.token)
            self._tasks.create_task(self._serve(mailbox), name=f"session {delivery.token}")
        mailbox.queue.append(delivery)

    def expedite(self, claims: Iterable[Claim], token: str, run: str) -> None:
        """A queued turn was cancelled: it ends now, not when those before it have ended.

        Only one that was never delivered before, though: any other may have been committed already.
        """
        for mailbox in filter(None, (claim.mailboxes.get(token) for claim in claims)):
            for delivery in mailbox.queue:
                if delivery.fresh and delivery.run_token == run:
                    mailbox.queue.remove(delivery)
                    self._tasks.create_task(self._run_aside(delivery), name=f"cancelled {run}")
                    return

    def close(self, claim: Claim) -> None:
        """Nothing new begins in the partition; what is queued will be delivered to its next owner."""
        if claim.is_open:
            claim.state = ClaimState.CLOSING
        self._hand_back_queued(claim)

    def lose(self, claim: Claim) -> None:
        """The partition is another worker's: its runs end here and now, in silence."""
        claim.state = ClaimState.LOST
        self._hand_back_queued(claim)
        self.stop(claim, StopReason.LOST)
        self._idle_sessions.drop(claim)

    def stop(self, claim: Claim, reason: StopReason) -> None:
        """Stops what runs in the partition."""
        for mailbox in claim.mailboxes.values():
            if mailbox.running is not None:
                mailbox.running.stop(reason)

    async def settled(self, claim: Claim) -> None:
        """Returns once nothing runs in a closed partition; its sessions have left memory then.

        A session that only waits for a slot runs nothing, and never will: its queue was handed back.
        """
        for mailbox in list(claim.mailboxes.values()):
            if mailbox.running is not None:
                await mailbox.idle.wait()
        self._idle_sessions.drop(claim)

    def _hand_back_queued(self, claim: Claim) -> None:
        for mailbox in claim.mailboxes.values():
            while mailbox.queue:
                self._finish(mailbox.queue.popleft())

    async def _serve(self, mailbox: Mailbox) -> None:
        claim = mailbox.claim
        resident = self._idle_sessions.take(mailbox.token, claim)
        try:
            while mailbox.queue:
                async with self._slots:
                    if not mailbox.queue:
                        break
                    delivery = mailbox.queue.popleft()
                    mailbox.running = RunScope(delivery.deadline())
                    try:
                        await self._runner.run(delivery, resident, mailbox.running)
                    finally:
                        mailbox.running = None
                        self._finish(delivery)
        finally:
            del claim.mailboxes[mailbox.token]
            mailbox.idle.set()
            self._idle_sessions.put(mailbox.token, resident)

    async def _run_aside(self, delivery: Delivery) -> None:
        try:
            await self._runner.run(delivery, Resident(delivery.claim), RunScope())
        finally:
            self._finish(delivery)

    def _finish(self, delivery: Delivery) -> None:
        delivery.claim.held.pop(delivery.sequence, None)
        self._on_finished(delivery)
