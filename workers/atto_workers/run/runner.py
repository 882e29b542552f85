"""One turn, from delivery to acknowledgement: exactly one commit and one terminal event, or silence."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from uuid import UUID

import nats.errors

from atto.agents import Agent
from atto.broker.jetstream import JetStream
from atto.protocol.errors import BrokerUnavailable, ConcurrentWrite
from atto.protocol.events import RunCompleted, RunStarted, StepRestarted, TerminalEvent
from atto.protocol.sessions import Commit, RunRecord, Snapshot
from atto.protocol.subjects import Subjects
from atto.protocol.turns import Turn
from atto.stores import SessionStore
from atto_workers.cancels import Cancels
from atto_workers.dead_letters import DeadLetters
from atto_workers.delivery import Claim, Delivery, Problem
from atto_workers.gateway import RetryPolicy
from atto_workers.passivation import Resident
from atto_workers.run import commit as commits
from atto_workers.run.journal import Progress, read_progress
from atto_workers.run.log import Outbox, RunLog
from atto_workers.run.loop import run_loop
from atto_workers.run.outcome import AttemptsExhausted, Outcome, failed, now, outcome_of
from atto_workers.run.scope import RunScope, Stopped, StopReason
from atto_workers.topology import DUPLICATE_WINDOW

MAX_ATTEMPTS = 5
"""Attempts at a turn, over all its owners, before it is a dead letter."""
RETRY_PAUSE = 0.2
"""Seconds before a broker that is away is asked again for what a turn cannot go on without."""

_log = logging.getLogger("atto.worker")


class _KnownRun(Exception):  # noqa: N818 - a detour
    """A turn that looked new was committed before: its events must be read after all."""


class TurnRunner:
    """Runs the turns of one agent. `verify` finds out whether a claim still stands."""

    def __init__(
        self,
        agent: Agent,
        store: SessionStore,
        jetstream: JetStream,
        subjects: Subjects,
        outbox: Outbox,
        cancels: Cancels,
        *,
        policy: RetryPolicy,
        verify: Callable[[Claim], Awaitable[None]],
    ) -> None:
        self._agent = agent
        self._store = store
        self._jetstream = jetstream
        self._subjects = subjects
        self._outbox = outbox
        self._cancels = cancels
        self._dead_letters = DeadLetters(jetstream, subjects)
        self._policy = policy
        self._verify = verify

    async def run(self, delivery: Delivery, resident: Resident, scope: RunScope) -> None:
        """Ends the turn, or leaves it to the partition's next owner if `scope` or the claim says so.

        Whatever goes wrong stays within the turn.
        """
        turn, session, run_id = delivery.turn, delivery.session, delivery.run_id
        try:
            if turn is None or session is None or run_id is None:
                await self._bury(delivery)
                return
            with self._cancels.watching(delivery, scope):
                while not delivery.claim.is_lost:
                    if await self._attempt(delivery, turn, session, run_id, resident, scope):
                        return
        except commits.GaveUp:
            resident.snapshot = None

    async def _attempt(
        self,
        delivery: Delivery,
        turn: Turn,
        session: str,
        run_id: str,
        resident: Resident,
        scope: RunScope,
    ) -> bool:
        """Whether the turn is over for this worker."""
        progress = await self._progress(delivery, session, run_id)
        if progress.terminal is not None:
            await self._acknowledge(delivery)
            return True
        log = self._log_of(delivery, session, run_id, progress)
        try:
            outcome = Outcome(
                await self._execute(delivery, turn, session, run_id, resident, scope, progress, log)
            )
        except Stopped as stop:
            if stop.reason in {StopReason.LOST, StopReason.HANDED_BACK}:
                return True
            outcome = outcome_of(stop, log.next)
        except ConcurrentWrite:
            resident.snapshot = None
            delivery.fresh = False
            await self._verify(delivery.claim)
            log.append(StepRestarted(seq=log.next, step=1, reason="the session was changed by another writer"))
            await log.confirm()
            return False
        except _KnownRun:
            delivery.fresh = False
            return False
        except commits.GaveUp:
            raise
        except Exception as error:
            outcome = outcome_of(error, log.next)
            resident.snapshot = None
            if outcome.dead is not None:
                _log.exception("run %s of session %r cannot be run", run_id, session)
        await self._end(delivery, log, outcome)
        return True

    async def _execute(
        self,
        delivery: Delivery,
        turn: Turn,
        session: str,
        run_id: str,
        resident: Resident,
        scope: RunScope,
        progress: Progress,
        log: RunLog,
    ) -> TerminalEvent:
        """One attempt. Raises whatever ends it otherwise than by an answer."""
        claim = delivery.claim
        async with scope:
            snapshot = resident.snapshot
            if snapshot is None:
                # An earlier owner may have committed the turn: then only the store can say what became of it.
                tries = commits.STORE_TRIES if delivery.fresh else None
                snapshot = resident.snapshot = await commits.load(self._store, session, claim, tries=tries)
            record = snapshot.record(run_id)
            if record is not None:
                if delivery.fresh:
                    raise _KnownRun
                return _answered(log.next, snapshot, record)
            if progress.attempts >= MAX_ATTEMPTS:
                raise AttemptsExhausted(
                    f"the turn was begun {progress.attempts} times and never ended: it takes its worker down, "
                    "or what it needs keeps failing"
                )
            log.append(RunStarted(seq=log.next, time=now(), agent=self._agent.name, attempt=log.attempt))
            if not delivery.fresh:
                await log.confirm()  # so that this attempt counts even if it kills the worker
            answer = await run_loop(
                self._agent,
                snapshot,
                turn.message(),
                run_id=run_id,
                metadata=turn.metadata,
                log=log,
                progress=progress,
                policy=self._policy,
            )
        commit = Commit(run_id=run_id, messages=answer.messages, change=answer.change)
        resident.snapshot = await commits.save(self._store, snapshot, commit, claim)
        return RunCompleted(
            seq=log.next,
            time=now(),
            message=answer.message,
            version=resident.snapshot.version,
            usage=answer.usage,
        )

    async def _end(self, delivery: Delivery, log: RunLog, outcome: Outcome) -> None:
        if outcome.dead is not None:
            await self._file(delivery, outcome.dead)
        log.append(outcome.terminal)
        await log.confirm()
        await self._acknowledge(delivery)

    async def _bury(self, delivery: Delivery) -> None:
        """A turn that cannot be read: a dead letter, and a terminal event where its run can be named."""
        problem = delivery.problem or Problem("invalid_turn", "the turn cannot be read")
        await self._file(delivery, problem)
        if delivery.session is not None and delivery.run_id is not None:
            progress = await self._progress(delivery, delivery.session, delivery.run_id)
            if progress.terminal is None:
                log = self._log_of(delivery, delivery.session, delivery.run_id, progress)
                log.append(failed(log.next, problem))
                await log.confirm()
        await self._acknowledge(delivery)

    async def _file(self, delivery: Delivery, problem: Problem) -> None:
        while not delivery.claim.is_lost:
            try:
                await self._dead_letters.file(delivery, problem)
            except BrokerUnavailable:
                await asyncio.sleep(RETRY_PAUSE)
            else:
                return

    async def _progress(self, delivery: Delivery, session: str, run_id: str) -> Progress:
        """How far earlier attempts came. Nobody is asked where there can be none."""
        if delivery.fresh and _is_new(run_id, delivery.timestamp_ms):
            return Progress()
        subject = self._subjects.event(session, run_id)
        while True:
            try:
                return await read_progress(self._jetstream, self._subjects.events_stream, subject)
            except BrokerUnavailable:
                if not delivery.claim.is_open:
                    raise commits.GaveUp from None
                await asyncio.sleep(RETRY_PAUSE)

    def _log_of(self, delivery: Delivery, session: str, run_id: str, progress: Progress) -> RunLog:
        return RunLog(
            self._outbox,
            self._subjects.event(session, run_id),
            attempt=progress.attempts + 1,
            since=progress.next,
            is_silenced=lambda: delivery.claim.is_lost,
        )

    async def _acknowledge(self, delivery: Delivery) -> None:
        if not delivery.claim.is_lost:
            # One that gets lost is delivered again, and answered from the record.
            with contextlib.suppress(nats.errors.Error):
                await self._jetstream.connection.publish(delivery.reply, b"+ACK")


def _answered(seq: int, snapshot: Snapshot, record: RunRecord) -> RunCompleted:
    """The answer of a run that was committed before."""
    return RunCompleted(
        seq=seq, time=now(), message=snapshot.answer(record), version=snapshot.version_of(record)
    )


def _is_new(run_id: str, timestamp_ms: int) -> bool:
    """Whether the id was made at about the time of the turn: then the broker's de-duplication covers it, and
    no earlier turn can have had it.
    """
    try:
        uuid = UUID(run_id)
    except ValueError:
        return False
    age_ms = abs(timestamp_ms - (uuid.int >> 80))
    return uuid.version == 7 and age_ms < DUPLICATE_WINDOW * 1000
