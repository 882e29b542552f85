"""The end of a turn: its last event, a dead letter where it could not be run, the acknowledgement."""

import asyncio
import contextlib
import logging

from atto.broker.refusals import MESSAGE_TOO_LARGE
from atto.protocol.errors import BrokerRefused, BrokerUnavailable
from atto.protocol.events import RunInterrupted
from atto_workers.backoff import Backoff
from atto_workers.dead_letters import DeadLetters
from atto_workers.delivery import Delivery, Problem
from atto_workers.run.acknowledging import Acknowledgements
from atto_workers.run.attempts import Attempts
from atto_workers.run.log import RunLog
from atto_workers.run.outcome import Outcome, failed
from atto_workers.run.scope import Stopped
from atto_workers.run.standing import GaveUp, Superseded

HAND_BACK_PATIENCE = 2.0
"""Seconds that a broker that is away may hold up a hand-back."""

_log = logging.getLogger("atto.worker")


class Ending:
    """Of all turns of a worker. A broker that is away is waited for as long as the claim stands."""

    def __init__(
        self, acknowledgements: Acknowledgements, dead_letters: DeadLetters, attempts: Attempts
    ) -> None:
        self._acknowledgements = acknowledgements
        self._dead_letters = dead_letters
        self._attempts = attempts

    async def end(self, delivery: Delivery, log: RunLog, outcome: Outcome) -> None:
        """The attempt that speaks in `log` was the last one. Raises `Superseded`, `GaveUp`."""
        if outcome.dead is not None:
            await self._file(delivery, outcome.dead)
        log.append(outcome.terminal, guarded=True)
        await log.confirm()
        await self.acknowledge(delivery)

    async def bury(self, delivery: Delivery, problem: Problem) -> None:
        """A turn that cannot be run: a dead letter, and a terminal event where its run can be named.

        Raises `GaveUp` if it is another worker's by now.
        """
        await self._file(delivery, problem)
        await self.refuse(delivery, problem)

    async def refuse(self, delivery: Delivery, problem: Problem) -> None:
        """A turn that is not begun: a terminal event where its run can be named, which says why.

        Raises as `bury` does.
        """
        if delivery.session is not None and delivery.run_id is not None:
            backoff = Backoff()
            while not await self._is_told(delivery, problem):
                delivery.fresh = False
                await backoff.pause()
        await self.acknowledge(delivery)

    async def _is_told(self, delivery: Delivery, problem: Problem) -> bool:
        progress = await self._attempts.begin(delivery)
        if progress.terminal is not None:
            return True
        with self._attempts.log_of_next(delivery, progress) as log:
            log.append(failed(log.next, problem), guarded=True)
            try:
                await log.confirm()
            except Superseded:
                return False
        return True

    async def hand_back(self, log: RunLog, stop: Stopped) -> None:
        """Says that this attempt does not count against the turn. If that cannot be said, it counts."""
        log.append(RunInterrupted(seq=log.next, reason=stop.reason.value))
        with contextlib.suppress(TimeoutError, Superseded, GaveUp):
            async with asyncio.timeout(HAND_BACK_PATIENCE):
                await log.confirm()

    async def acknowledge(self, delivery: Delivery) -> None:
        """Nothing more is to be done."""
        await self._acknowledgements.send(delivery)

    async def _file(self, delivery: Delivery, problem: Problem) -> None:
        backoff = Backoff(until=lambda: delivery.claim.is_lost)
        while not delivery.claim.is_lost:
            try:
                await self._dead_letters.file(delivery, problem)
            except (BrokerUnavailable, BrokerRefused) as error:
                if isinstance(error, BrokerRefused) and error.err_code == MESSAGE_TOO_LARGE:
                    # Not even without its body: waiting would not mend it. Its last event says what it was.
                    _log.error("no dead letter of run %s: %s", delivery.run_id, error)
                    return
                _log.warning("dead letter of run %s: %s", delivery.run_id, error)
                await backoff.pause()
            else:
                return
