"""The end of a turn: its last event, a dead letter where it could not be run, the acknowledgement."""

import asyncio
import contextlib
import logging

import nats.errors

from atto.broker.jetstream import JetStream
from atto.protocol.errors import BrokerRefused, BrokerUnavailable
from atto.protocol.events import RunInterrupted
from atto_workers.dead_letters import DeadLetters
from atto_workers.delivery import Delivery, Problem
from atto_workers.run.attempts import Attempts
from atto_workers.run.log import RETRY_PAUSE, RunLog
from atto_workers.run.outcome import Outcome, failed
from atto_workers.run.scope import Stopped

HAND_BACK_PATIENCE = 2.0
"""Seconds that a broker that is away may hold up a hand-back."""

_log = logging.getLogger("atto.worker")


class Ending:
    """Of all turns of a worker. A broker that is away is waited for as long as the claim stands."""

    def __init__(self, jetstream: JetStream, dead_letters: DeadLetters, attempts: Attempts) -> None:
        self._jetstream = jetstream
        self._dead_letters = dead_letters
        self._attempts = attempts

    async def end(self, delivery: Delivery, log: RunLog, outcome: Outcome) -> None:
        """The attempt that speaks in `log` was the last one."""
        if outcome.dead is not None:
            await self._file(delivery, outcome.dead)
        log.append(outcome.terminal)
        await log.confirm()
        await self.acknowledge(delivery)

    async def bury(self, delivery: Delivery, problem: Problem) -> None:
        """A turn that cannot be run: a dead letter, and a terminal event where its run can be named."""
        await self._file(delivery, problem)
        if delivery.session is not None and delivery.run_id is not None:
            progress = await self._attempts.progress(delivery)
            if progress.terminal is None:
                with self._attempts.log_of_next(delivery, progress) as log:
                    log.append(failed(log.next, problem))
                    await log.confirm()
        await self.acknowledge(delivery)

    async def hand_back(self, log: RunLog, stop: Stopped) -> None:
        """Says that this attempt does not count against the turn. If that cannot be said, it counts."""
        log.append(RunInterrupted(seq=log.next, reason=stop.reason.value))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_BACK_PATIENCE):
                await log.confirm()

    async def acknowledge(self, delivery: Delivery) -> None:
        """Nothing more is to be done. One that gets lost is delivered again, and answered from the record."""
        if delivery.reply and not delivery.claim.is_lost:
            with contextlib.suppress(nats.errors.Error):
                await self._jetstream.connection.publish(delivery.reply, b"+ACK")

    async def _file(self, delivery: Delivery, problem: Problem) -> None:
        while not delivery.claim.is_lost:
            try:
                await self._dead_letters.file(delivery, problem)
            except (BrokerUnavailable, BrokerRefused) as error:
                _log.warning("dead letter of run %s: %s", delivery.run_id, error)
                await asyncio.sleep(RETRY_PAUSE)
            else:
                return
