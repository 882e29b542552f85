"""One turn, from delivery to acknowledgement: exactly one commit and one terminal event, or silence."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import NamedTuple

from atto.agents import Agent
from atto.aio.user_code import describe, must_pass
from atto.broker.jetstream import JetStream
from atto.protocol.errors import (
    ConcurrentWrite,
    StoreCorrupt,
    StoreUnavailable,
)
from atto.protocol.events import (
    RunInterrupted,
    RunStarted,
    StepRestarted,
)
from atto.protocol.sessions import Commit, Snapshot
from atto.protocol.subjects import Subjects
from atto.stores import SessionStore
from atto_workers.backoff import Backoff
from atto_workers.cancels import Cancels
from atto_workers.dead_letters import DeadLetters
from atto_workers.delivery import Claim, Content, Delivery, Problem
from atto_workers.gateway import ModelGateway
from atto_workers.interruption import Interruption
from atto_workers.passivation import Resident
from atto_workers.run import commit as commits
from atto_workers.run import retelling
from atto_workers.run.acknowledging import Acknowledgements
from atto_workers.run.attempts import Attempts, looks_new
from atto_workers.run.conclusion import Conclusions
from atto_workers.run.effects import has_acted, has_effects
from atto_workers.run.ending import Ending
from atto_workers.run.evidence import EventsPast
from atto_workers.run.journal import SILENT, Progress
from atto_workers.run.log import RunLog
from atto_workers.run.loop import Answer, run_loop
from atto_workers.run.outbox import Outbox
from atto_workers.run.outcome import (
    AttemptsExhausted,
    JournalLost,
    Outcome,
    SessionDeleted,
    failed,
    now,
    outcome_of,
    unsupported,
)
from atto_workers.run.scope import RunScope, Stopped, StopReason
from atto_workers.run.standing import GaveUp, Superseded
from atto_workers.turn_context import TurnContext

MAX_ATTEMPTS = 5
"""Attempts at a turn, over all its owners, before it is a dead letter."""
FORGIVEN = 3
"""Attempts at a turn that do not count since their worker fell silent; a turn that blocks each of its workers
must end, too."""

_log = logging.getLogger("atto.worker")


class _Attempt(NamedTuple):
    """`cached`: the session as it was in memory before the attempt."""

    delivery: Delivery
    content: Content
    progress: Progress
    log: RunLog
    cached: Snapshot | None


class TurnRunner:
    """Runs the turns of one agent. `verify` finds out whether a claim still stands, `assure` likewise,
    but asks only where that is in doubt.
    """

    def __init__(
        self,
        agent: Agent,
        store: SessionStore,
        *,
        jetstream: JetStream,
        subjects: Subjects,
        outbox: Outbox,
        past: EventsPast,
        acknowledgements: Acknowledgements,
        cancels: Cancels,
        gateway: ModelGateway,
        verify: Callable[[Claim], Awaitable[object]],
        assure: Callable[[Claim], Awaitable[bool]],
    ) -> None:
        self._agent = agent
        self._store = store
        self._attempts = Attempts(jetstream, subjects, outbox, past, assure=assure, verify=verify)
        self._ending = Ending(acknowledgements, DeadLetters(jetstream, subjects), self._attempts)
        self._cancels = cancels
        self._gateway = gateway
        self._verify = verify
        self._assure = assure
        self._conclusions = Conclusions(agent, store, self._make_sure)

    async def run(self, delivery: Delivery, resident: Resident, scope: RunScope) -> bool:
        """Ends the turn, or leaves it to the partition's next owner if `scope` or the claim says so.

        Whatever goes wrong stays within the turn. False: it could not be ended, and must be tried again
        before any other turn of its session.
        """
        content = delivery.content
        try:
            refusal = None if content is None else unsupported(content.turn, self._agent.name)
            if content is None or refusal is not None:
                await self._turn_down(delivery, refusal)
                return True
            try:
                await self._cancels.watch(delivery, scope)
                partition = delivery.claim.partition
                with TurnContext(session=content.session, run=content.run_id, partition=partition):
                    backoff: Backoff | None = None
                    while not await self._attempt(delivery, content, resident, scope):
                        backoff = backoff or Backoff(base=0.02, until=lambda: delivery.claim.is_lost)
                        if not await backoff.pause():
                            break
            finally:
                self._cancels.unwatch(delivery, scope)
        except GaveUp:
            resident.snapshot = None
        except BaseException as error:  # a defect of ours costs this turn, not the worker
            if must_pass(error):
                raise
            resident.snapshot = None
            _log.exception("run %s of session %r ended in a defect", delivery.run_id, delivery.session)
            return await self.end_in_spite(delivery, error, resident, scope)
        return True

    async def _turn_down(self, delivery: Delivery, refusal: Problem | None) -> None:
        """A turn that is not begun: because of `refusal`, or since it cannot be read."""
        if refusal is not None:
            await self._ending.refuse(delivery, refusal)
            return
        problem = delivery.problem or Problem("invalid_turn", "the turn cannot be read")
        await self._ending.bury(delivery, problem)

    async def end_in_spite(
        self, delivery: Delivery, error: BaseException, resident: Resident, scope: RunScope
    ) -> bool:
        """After a defect of ours: ends the turn as a failure, unless it has been committed.

        False: it cannot even be ended, now.
        """
        delivery.fresh = False  # what was said already must not be said again under the same number
        try:
            content = delivery.content
            problem = Problem("internal", describe(error))
            if content is None:
                await self._ending.bury(delivery, problem)
            elif await self._is_committed(content, delivery.claim):
                await self._attempt(delivery, content, resident, scope)
            else:
                while not await self._fail(delivery, content, resident, problem):
                    pass
        except GaveUp:
            return True
        except BaseException as failure:  # as above
            if must_pass(failure):
                raise
            _log.exception("run %s of session %r cannot be ended", delivery.run_id, delivery.session)
            return False
        return True

    async def _fail(self, delivery: Delivery, content: Content, resident: Resident, problem: Problem) -> bool:
        """Whether the run has ended, as a failure or as it had before."""
        progress = await self._attempts.begin(delivery)
        if progress.terminal is not None:
            await self._ending.acknowledge(delivery)
            return True
        with self._attempts.log_of_next(delivery, progress) as log:
            attempt = _Attempt(delivery, content, progress, log, cached=None)
            try:
                outcome = Outcome(failed(log.next, problem), problem)
                await self._ending.end(delivery, log, await self._conclude(attempt, resident, outcome))
            except Superseded:
                return False
        return True

    async def _is_committed(self, content: Content, claim: Claim) -> bool:
        snapshot = await commits.load(self._store, content.session, claim, tries=commits.STORE_TRIES)
        return snapshot.record(content.run_id) is not None

    async def _attempt(
        self, delivery: Delivery, content: Content, resident: Resident, scope: RunScope
    ) -> bool:
        """Whether the turn is over for this worker."""
        progress = await self._attempts.begin(delivery)
        if progress.terminal is not None:
            await self._ending.acknowledge(delivery)
            return True
        with self._attempts.log_of_next(delivery, progress) as log, TurnContext(attempt=log.attempt):
            attempt = _Attempt(delivery, content, progress, log, cached=resident.snapshot)
            try:
                outcome = await self._outcome(attempt, resident, scope)
                if outcome.commits:
                    outcome = await self._conclude(attempt, resident, outcome)
                await self._ending.end(delivery, log, outcome)
            except Stopped as stop:
                await self._ending.hand_back(log, stop)
            except ConcurrentWrite:
                try:
                    await self._start_over(attempt, resident)
                except SessionDeleted as error:
                    await self._ending.end(delivery, log, outcome_of(error, log.next))
                    return True
                return False
            except Superseded as refusal:
                # A successor has begun, or the turn is of a run that was known before: look at it anew.
                _log.debug("run %s: %s", content.run_id, refusal)
                resident.snapshot = None
                delivery.fresh = False
                return False
            return True

    async def _outcome(self, attempt: "_Attempt", resident: Resident, scope: RunScope) -> Outcome:
        """How the attempt ends. Raises `Stopped` where another worker goes on; and what starts it over."""
        log = attempt.log
        try:
            return await self._execute(attempt, resident, scope)
        except (Superseded, ConcurrentWrite, GaveUp):
            raise
        except Stopped as stop:
            if stop.reason in {StopReason.LOST, StopReason.HANDED_BACK}:
                raise
            return outcome_of(stop, log.next)
        except Exception as error:  # noqa: BLE001 - whatever an agent does ends its run, never the worker
            outcome = outcome_of(error, log.next)
            if not outcome.commits:
                resident.snapshot = None
                if isinstance(error, StoreUnavailable) and not attempt.delivery.fresh:
                    outcome = outcome._replace(commits=True)  # an earlier owner's save may be on its way
            if outcome.dead is not None:
                run_id = attempt.content.run_id
                # Not the reason: it may quote what was said. The dead letter and the last event have it.
                _log.error("run %s cannot be run: %s", run_id, outcome.dead.code, exc_info=error)
            return outcome

    async def _conclude(self, attempt: "_Attempt", resident: Resident, outcome: Outcome) -> Outcome:
        """Commits an end without an answer, of a run that began, and may so be committed by an earlier owner:
        its save could be on its way. Raises `Superseded`, `GaveUp`.
        """
        delivery, content, progress, log, _ = attempt
        has_spoken = log.next > progress.next
        if not (has_spoken or progress.attempts or progress.lost is not None):
            return outcome
        if has_spoken:
            await log.opened()
        base, resident.snapshot = resident.snapshot, None
        concluded = await self._conclusions.conclude(delivery, content, log, outcome, base=base)
        resident.snapshot = concluded.snapshot
        return concluded.outcome

    async def _execute(self, attempt: "_Attempt", resident: Resident, scope: RunScope) -> Outcome:
        """One attempt, committed. Raises whatever ends it otherwise than by an answer."""
        delivery, content, progress, log = attempt[:4]
        if not delivery.fresh:
            # Outside the scope: a run that an earlier attempt committed has ended, whatever stops it now.
            snapshot = await self._session(attempt, resident)
            record = snapshot.record(content.run_id)
            if record is not None:
                told = retelling.steps_of_progress(progress)
                return retelling.ended(log, snapshot, record, told=told, words="".join(progress.words))
        with scope:
            snapshot = await self._session(attempt, resident)
            if snapshot.record(content.run_id) is not None:
                raise Superseded("the run has been committed")
            if progress.lost is not None and has_effects(self._agent):
                raise JournalLost(progress.lost)
            unended = progress.attempts - progress.interrupted
            if _was_silent(attempt):
                log.append(RunInterrupted(seq=log.next, reason=SILENT))
                unended -= 1
            if unended >= MAX_ATTEMPTS:
                raise AttemptsExhausted(
                    f"the turn was begun {unended} times and never ended: it takes its worker "
                    "down, or what it needs keeps failing"
                )
            log.append(
                RunStarted(seq=log.next, time=now(), agent=self._agent.name, attempt=progress.attempts + 1)
            )
            if not (delivery.fresh and looks_new(content.run_id, delivery.timestamp_ms)):
                # So that this attempt counts even if it kills the worker, and no model is called for a run
                # that may be known. Others begin while the broker looks at their opening.
                await log.opened()
            with _Unrefused(log, scope):
                answer = await self._answer(attempt, snapshot, scope)
        await log.opened()
        log.end_soon()
        await self._make_sure(delivery.claim)
        commit = Commit(
            run_id=content.run_id,
            messages=answer.messages,
            change=answer.change,
            usage=answer.usage,
            agent=self._agent.name,
        )
        snapshot = resident.snapshot = await commits.save(
            self._store,
            snapshot,
            commit,
            delivery.claim,
            make_sure=partial(self._make_sure, delivery.claim),
        )
        record = snapshot.record(content.run_id)
        if record is None:
            raise StoreCorrupt("the store returned a snapshot without the run that it has just committed")
        told = None
        if not retelling.is_told(snapshot, record, answer.messages):
            told = retelling.steps_of_messages(answer.messages)
        return retelling.ended(log, snapshot, record, told=told)

    def _answer(self, attempt: "_Attempt", snapshot: Snapshot, scope: RunScope) -> Awaitable[Answer]:
        delivery, content, progress, log = attempt[:4]
        return run_loop(
            self._agent,
            snapshot,
            content.turn.message(),
            run_id=content.run_id,
            metadata=content.turn.metadata,
            headers=delivery.headers,
            log=log,
            progress=progress,
            gateway=self._gateway,
            scope=scope,
        )

    async def _session(self, attempt: "_Attempt", resident: Resident) -> Snapshot:
        """The session as it is committed."""
        if resident.snapshot is None:
            delivery = attempt.delivery
            # An earlier owner may have committed the turn: then only the store can say what became of it.
            tries = commits.STORE_TRIES if delivery.fresh else None
            session = attempt.content.session
            snapshot = await commits.load(self._store, session, delivery.claim, tries=tries)
            # A worker that was paused, and is no longer the owner, could load what its successor committed
            # long after this very turn, when its record is gone. Asked after the load, so that whatever a
            # successor commits from here on refuses our own commit.
            await self._make_sure(delivery.claim)
            resident.snapshot = snapshot
        return resident.snapshot

    async def _make_sure(self, claim: Claim) -> None:
        """Raises `GaveUp` if the partition is another worker's by now, or may be."""
        if not await self._assure(claim):
            raise GaveUp

    async def _start_over(self, attempt: "_Attempt", resident: Resident) -> None:
        """Another writer was first: if the partition is still ours, the turn runs again on top of that.

        From its first step if nothing of it can have had an effect; else what was done stands, and is not
        done again. Raises `SessionDeleted` for a run that began in a session that is gone.
        """
        delivery, content, progress, log, cached = attempt
        base, resident.snapshot = resident.snapshot, None
        delivery.fresh = False
        await self._verify(delivery.claim)
        acted = log.acted or has_acted(self._agent, progress)
        # What was in memory before the turn came may have been deleted before that.
        if base is not None and base.version and (acted or base is not cached):
            found = await commits.load(self._store, content.session, delivery.claim, tries=None)
            if found.version == 0:
                raise SessionDeleted(
                    "the session was deleted while the run was under way: nothing of it was kept"
                )
        if not acted:
            log.append(StepRestarted(seq=log.next, step=1, reason="another writer changed the session"))
        await log.confirm()


class _Unrefused:
    """`with _Unrefused(log, scope)` around the work of an attempt: ends it once its opening is refused.

    Raises `Superseded` then, and `Stopped` if `scope` was stopped, whatever users' code made of either.
    """

    __slots__ = ("_body", "_log", "_scope")

    def __init__(self, log: RunLog, scope: RunScope) -> None:
        self._body = Interruption()
        self._log = log
        self._scope = scope

    def __enter__(self) -> None:
        self._body.__enter__()
        self._log.when_refused(self._body.interrupt)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_refused = self._body.__exit__(kind, error, trace)
        if is_refused or error is None or isinstance(error, Exception):
            self._scope.check()
        if is_refused:
            raise Superseded("another attempt has spoken before this one") from None


def _was_silent(attempt: _Attempt) -> bool:
    """Whether the attempt before this one stopped with its worker, which was not seen to end: blocked by
    another session's tool, perhaps, or cut off. That is not the turn's fault.
    """
    claim, progress = attempt.delivery.claim, attempt.progress
    is_of_a_former_owner = 0 < progress.attempt < claim.tenure.epoch
    is_unexplained = not progress.is_let_go and progress.attempts > progress.interrupted
    return claim.from_silent and is_of_a_former_owner and is_unexplained and progress.silent < FORGIVEN
