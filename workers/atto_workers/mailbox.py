"""Mailboxes: the turns of one session run strictly one after another, different sessions side by side."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from atto.aio.beside import end_tasks, leave_behind
from atto.aio.user_code import must_pass, tasks_in
from atto_workers.delivery import Claim, ClaimState, Delivery
from atto_workers.passivation import IdleSessions, Resident
from atto_workers.run.scope import RunScope, StopReason
from atto_workers.slots import Slots

RETRY_PAUSE = 1.0
"""Seconds before a turn that could not be ended is tried again."""
LEAVE_PATIENCE = 2.0
"""Seconds that runs have to end once all are cancelled, which they were told to do long before."""

_log = logging.getLogger("atto.worker")


class Runner(Protocol):
    """Runs one turn to its end: terminal event and acknowledgement, or silence if it was stopped."""

    async def run(self, delivery: Delivery, resident: Resident, scope: RunScope) -> bool:
        """`scope` stops it; `resident` holds the session before and after. False: it is to be run again."""
        ...

    async def end_in_spite(
        self, delivery: Delivery, error: BaseException, resident: Resident, scope: RunScope
    ) -> bool:
        """Ends a turn that nobody runs any more, because of `error`. False: it is to be tried again."""
        ...


TENANT = "tenant"
"""In a turn's metadata: whose share of a worker's slots it uses."""


class Mailbox:
    """The turns of one session that this worker holds. `current` has begun, or was left unended."""

    def __init__(self, claim: Claim, token: str) -> None:
        self.claim = claim
        self.token = token
        self.queue: deque[Delivery] = deque()
        self.current: Delivery | None = None
        self.failure: BaseException | None = None
        self.running: RunScope | None = None
        self.idle = asyncio.Event()


def _flow_of(mailbox: Mailbox) -> str:
    """Whose share of the slots the next turn uses: that of the tenant in its metadata, else its session's."""
    delivery = mailbox.current or mailbox.queue[0]
    tenant = None if delivery.content is None else delivery.content.turn.metadata.get(TENANT)
    return mailbox.token if tenant is None else f"tenant {tenant}"  # no token holds a space


class Mailboxes:
    """Hands deliveries to their sessions' mailboxes, each served by a task of its own while it is not empty.

    Nothing that happens in a run ends its mailbox: a turn that could not be ended is tried again, and those
    behind it wait. `async with`: leaving cancels all runs, and leaves behind those that do not let go.
    `limit`: turns that run at one time, over all sessions, shared as `Slots` says. `on_finished` is told of
    every delivery that is no longer held.
    """

    def __init__(
        self,
        runner: Runner,
        idle_sessions: IdleSessions,
        *,
        limit: int,
        on_finished: Callable[[Delivery], None],
    ) -> None:
        self._runner = runner
        self._idle_sessions = idle_sessions
        self._tasks: dict[asyncio.Task[None], Delivery | Mailbox] = {}
        self._is_closing = False
        self._slots = Slots(limit)
        self._on_finished = on_finished

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_closing = True
        for task in await end_tasks(list(self._tasks), patience=LEAVE_PATIENCE):
            held = self._tasks[task]
            delivery = held.current if isinstance(held, Mailbox) else held
            leave_behind(task)
            if delivery is not None:
                session, run = delivery.session or "", delivery.run_id or ""
                _log.error("run %s of session %r does not end: left behind", run, session)
                for inner in tasks_in(session, run):
                    leave_behind(inner)

    def deliver(self, delivery: Delivery) -> None:
        """Queues a turn. Turns of a session must come in stream order."""
        claim = delivery.claim
        claim.held[delivery.sequence] = delivery
        mailbox = claim.mailboxes.get(delivery.token)
        if mailbox is None:
            mailbox = claim.mailboxes[delivery.token] = Mailbox(claim, delivery.token)
            self._start(mailbox)
        mailbox.queue.append(delivery)

    def expedite(self, claims: Iterable[Claim], token: str, run: str, reason: str) -> None:
        """A queued turn was cancelled: it ends now, not when those before it have ended.

        Only one that was never delivered before, though: any other may have been committed already.
        """
        for mailbox in filter(None, (claim.mailboxes.get(token) for claim in claims)):
            for delivery in mailbox.queue:
                if delivery.fresh and delivery.run_token == run:
                    mailbox.queue.remove(delivery)
                    scope = RunScope()
                    scope.stop(StopReason.CANCELLED, reason)
                    task = asyncio.create_task(self._run_aside(delivery, scope), name=f"cancelled {run}")
                    self._tasks[task] = delivery
                    task.add_done_callback(self._tasks.pop)
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

    def _start(self, mailbox: Mailbox) -> None:
        task = asyncio.create_task(self._serve(mailbox), name=f"session {mailbox.token}")
        self._tasks[task] = mailbox
        task.add_done_callback(partial(self._ended, mailbox))

    def _ended(self, mailbox: Mailbox, task: asyncio.Task[None]) -> None:
        """The mailbox is empty; or users' code cancelled its task, which was ours to cancel."""
        del self._tasks[task]
        failure = asyncio.CancelledError("cancelled by users' code") if task.cancelled() else task.exception()
        if failure is not None and not task.cancelled():
            _log.error("session %s: a defect", mailbox.token, exc_info=failure)
        if not self._is_closing and (mailbox.queue or mailbox.current is not None):
            mailbox.failure = None if mailbox.current is None else failure
            self._start(mailbox)
            return
        del mailbox.claim.mailboxes[mailbox.token]
        mailbox.idle.set()

    async def _serve(self, mailbox: Mailbox) -> None:
        resident = self._idle_sessions.take(mailbox.token, mailbox.claim)
        while mailbox.queue or mailbox.current is not None:
            with await self._slots.acquire(_flow_of(mailbox)):
                if mailbox.current is None:
                    if not mailbox.queue:
                        break
                    mailbox.current = mailbox.queue.popleft()
                delivery = mailbox.current
                mailbox.running = scope = RunScope(delivery.deadline())
                is_ended = False
                try:
                    is_ended = await self._run(mailbox, delivery, resident, scope)
                except BaseException as error:
                    if must_pass(error):
                        raise
                    _log.exception("run %s of session %r left its runner", delivery.run_id, delivery.session)
                    mailbox.failure = error
                finally:
                    mailbox.running = None
            if not is_ended:
                await asyncio.sleep(RETRY_PAUSE)
            if is_ended or not mailbox.claim.is_open:
                mailbox.current = None
                self._finish(delivery)
        self._idle_sessions.put(mailbox.token, resident)

    def _run(
        self, mailbox: Mailbox, delivery: Delivery, resident: Resident, scope: RunScope
    ) -> Awaitable[bool]:
        """No coroutine of its own: each that waits for a run is resumed whenever the run is."""
        failure, mailbox.failure = mailbox.failure, None
        if failure is None:
            return self._runner.run(delivery, resident, scope)
        resident.snapshot = None
        return self._runner.end_in_spite(delivery, failure, resident, scope)

    async def _run_aside(self, delivery: Delivery, scope: RunScope) -> None:
        try:
            while not await self._runner.run(delivery, Resident(delivery.claim), scope):
                if not delivery.claim.is_open:
                    return
                await asyncio.sleep(RETRY_PAUSE)
        finally:
            self._finish(delivery)

    def _finish(self, delivery: Delivery) -> None:
        delivery.claim.held.pop(delivery.sequence, None)
        self._on_finished(delivery)
