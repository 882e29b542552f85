"""The attempts at a turn: what earlier ones said, and the log of the next."""

import re
from collections.abc import Awaitable, Callable, Mapping

from msgspec import structs

from atto.broker.jetstream import JetStream
from atto.broker.refusals import WRONG_LAST_SEQUENCE, WRONG_LAST_SEQUENCE_CONSTANT
from atto.protocol.errors import BrokerRefused, BrokerUnavailable
from atto.protocol.subjects import Subjects
from atto_workers.backoff import Backoff
from atto_workers.delivery import Claim, Delivery
from atto_workers.run.evidence import EventsPast
from atto_workers.run.journal import Progress, read_progress
from atto_workers.run.log import Fence, RunLog
from atto_workers.run.opening import EXPECTED, Opening
from atto_workers.run.outbox import Outbox
from atto_workers.run.standing import GaveUp

# As RFC 9562 writes them: the milliseconds of the time, the version, the rest.
_UUID7 = re.compile(r"([0-9a-f]{8})-([0-9a-f]{4})-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", re.IGNORECASE)
_RECENT_MS = 120_000


class Attempts:
    """Of all turns of a worker. What they say leaves by `outbox`.

    `assure`: as of a log; `verify` asks the broker whether a claim still stands, and gives it up if not.
    """

    def __init__(
        self,
        jetstream: JetStream,
        subjects: Subjects,
        outbox: Outbox,
        past: EventsPast,
        *,
        assure: Callable[[Claim], Awaitable[bool]],
        verify: Callable[[Claim], Awaitable[object]],
    ) -> None:
        self._jetstream = jetstream
        self._subjects = subjects
        self._outbox = outbox
        self._past = past
        self._assure = assure
        self._verify = verify

    async def begin(self, delivery: Delivery) -> Progress:
        """How far earlier attempts came; from here on none of them can say anything that stands.

        Nobody is asked where there can be none: the opening of a first attempt is refused if there was one
        all the same. Waits for a broker that is away. Raises `GaveUp` once the claim is no longer open.
        """
        if delivery.fresh:
            return Progress()
        backoff = Backoff(until=lambda: not delivery.claim.is_open)
        while True:
            try:
                # A paused worker that wakes up must not fence off its successor.
                await self._verify(delivery.claim)
                if delivery.claim.is_lost:
                    raise GaveUp
                return await self._begin(delivery)
            except (BrokerUnavailable, BrokerRefused) as error:
                self._outbox.health.failed(error)
                if not await backoff.pause():
                    raise GaveUp from None

    async def _begin(self, delivery: Delivery) -> Progress:
        subject = self._subjects.event_of(delivery.token, delivery.run_token)
        stream = self._subjects.events_stream
        past = await self._past.look()  # before the fence is a part of it
        fence = await put_fence(
            self._jetstream,
            stream,
            self._subjects.fence_of(delivery.token, delivery.run_token),
            self._outbox.lifetimes.openings,
        )
        progress = await read_progress(self._jetstream, stream, subject)
        self._outbox.health.took()
        lost = progress.lost
        if not progress.messages:
            lost = self._past.may_have_lost(past, delivery.timestamp_ms)
        elif lost is None and progress.terminal is None:
            lost = past.may_have_outlived_records(progress.said_at)
        return structs.replace(progress, fence=fence, lost=lost)

    def log_of_next(self, delivery: Delivery, progress: Progress) -> RunLog:
        """The next attempt's.

        Attempts are numbered by ownership, not by what was read of earlier ones: a former owner that was
        paused may yet begin its own, or say more, and neither may count as newer than its successor's. The
        first delivery has the lowest number; nobody can have been before it.
        """
        claim = delivery.claim
        is_first = delivery.fresh and progress.attempt == 0
        subject = self._subjects.event_of(delivery.token, delivery.run_token)
        return RunLog(
            self._outbox,
            subject,
            attempt=1 if is_first else max(claim.tenure.epoch, progress.attempt + 1),
            since=progress.next,
            recorded=progress.recorded,
            is_silenced=lambda: claim.is_lost,
            fence=Fence(self._subjects.fence_of(delivery.token, delivery.run_token), progress.fence),
            opening=Opening(
                self._jetstream,
                self._subjects.events_stream,
                subject,
                after=progress.read_to,
                health=self._outbox.health,
                kept=self._outbox.lifetimes.openings,
            ),
            inherited=progress.messages,
            assure=lambda: self._assure(claim),
        )


async def put_fence(jetstream: JetStream, stream: str, subject: str, kept: Mapping[str, str]) -> int:
    """Writes it anew, whatever it was; the sequence at which it stands now. `kept`: headers that say for how
    long.

    Nearly always it is the first one. Another owner's is found by its refusal.
    """
    expected = 0
    while True:
        try:
            taken = await jetstream.publish(subject, b"", headers={EXPECTED: str(expected), **kept})
        except BrokerRefused as error:
            if error.err_code == WRONG_LAST_SEQUENCE_CONSTANT:
                raise BrokerUnavailable(str(error)) from error
            if error.err_code != WRONG_LAST_SEQUENCE:
                raise
            newest = await jetstream.last(stream, subject)
            expected = 0 if newest is None else newest.sequence
        else:
            return taken.sequence


def looks_new(run_id: str, timestamp_ms: int) -> bool:
    """Whether the id was made at about the time of the turn, as nearly all are: then it is worth beginning
    before the broker has said that nobody spoke in the run yet. No more than that: clocks may be wrong.
    """
    match = _UUID7.fullmatch(run_id)
    return match is not None and abs(timestamp_ms - int(match[1] + match[2], 16)) < _RECENT_MS
