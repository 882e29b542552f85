"""The attempts at a turn: what earlier ones said, and the log of the next."""

import asyncio
import re

from atto.broker.jetstream import JetStream
from atto.protocol.errors import BrokerUnavailable
from atto.protocol.subjects import Subjects
from atto_workers.delivery import Delivery
from atto_workers.run.commit import GaveUp
from atto_workers.run.journal import Progress, read_progress
from atto_workers.run.log import RETRY_PAUSE, Outbox, RunLog
from atto_workers.topology import DUPLICATE_WINDOW

# As RFC 9562 writes them: the milliseconds of the time, the version, the rest.
_UUID7 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)


class Attempts:
    """Of all turns of a worker. What they say leaves by `outbox`."""

    def __init__(self, jetstream: JetStream, subjects: Subjects, outbox: Outbox) -> None:
        self._jetstream = jetstream
        self._subjects = subjects
        self._outbox = outbox

    async def progress(self, delivery: Delivery, *, until: int | None = None) -> Progress:
        """How far those before attempt `until` came. Nobody is asked where there can be none.

        Waits for a broker that is away. Raises `GaveUp` once the claim is no longer open.
        """
        if delivery.fresh and _is_new(delivery.run_id or "", delivery.timestamp_ms):
            return Progress()
        subject = self._subjects.event_of(delivery.token, delivery.run_token)
        while True:
            try:
                return await read_progress(
                    self._jetstream, self._subjects.events_stream, subject, until=until
                )
            except BrokerUnavailable:
                if not delivery.claim.is_open:
                    raise GaveUp from None
                await asyncio.sleep(RETRY_PAUSE)

    def log_of_next(self, delivery: Delivery, progress: Progress) -> RunLog:
        """The next attempt's.

        Attempts are numbered by ownership, not by what was read of earlier ones: a former owner that was
        paused may yet begin its own, or say more, and neither may count as newer than its successor's. The
        first delivery has the lowest number; nobody can have been before it.
        """
        is_first = delivery.fresh and progress.attempt == 0
        return RunLog(
            self._outbox,
            self._subjects.event_of(delivery.token, delivery.run_token),
            attempt=1 if is_first else max(delivery.claim.tenure.epoch, progress.attempt + 1),
            since=progress.next,
            is_silenced=lambda: delivery.claim.is_lost,
        )


def _is_new(run_id: str, timestamp_ms: int) -> bool:
    """Whether the id was made at about the time of the turn: then the broker's de-duplication covers it, and
    no earlier turn can have had it.
    """
    match = _UUID7.fullmatch(run_id)
    if match is None:
        return False
    return abs(timestamp_ms - int(match[1] + match[2], 16)) < DUPLICATE_WINDOW * 1000
