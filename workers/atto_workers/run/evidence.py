"""Whether a run that the stream knows nothing of can have begun: what the stream tells of its own past."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from atto.broker.jetstream import JetStream
from atto.broker.refusals import STREAM_NOT_FOUND
from atto.protocol.errors import BrokerRefused, NoResponders
from atto.protocol.subjects import Subjects
from atto_workers.run.keeping import Kept

_SECOND = 1_000_000_000
_NEVER = datetime(1, 1, 1, tzinfo=UTC)
NEARLY_FULL = 0.5
"""The part of its bound from which on a stream may have pushed something out: a message has a few percent of
any bound that makes sense, and nothing but age makes a stream smaller that is at its bound.
"""
_PURGED = "the stream of events was purged, or all of it has expired, after the turn was accepted"


class _State(msgspec.Struct):
    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    first_ts: datetime = _NEVER
    last_ts: datetime = _NEVER


class StreamPast(msgspec.Struct):
    """What a stream says of itself. `ts`: when, by the broker's clock, as are all times here."""

    config: dict[str, Any]
    state: _State
    created: datetime = _NEVER
    ts: datetime = _NEVER

    def may_have_lost(self, since_ms: int) -> str | None:
        """How a message that came at `since_ms` (by the broker's clock) or later may be gone, in words; None
        if that cannot be.

        A purge by hand goes unseen if others have spoken since.
        """
        if _ms(self.created) > since_ms:
            return "the stream of events was made after the turn was accepted"
        state = self.state
        if state.first_seq <= 1 or _ms(state.last_ts) < since_ms:
            return None  # nothing was ever removed, or nothing has come since
        kept = Kept.of(self.config)
        max_age = self.config.get("max_age", 0) / _SECOND if kept is None else kept.openings
        if max_age and _ms(self.ts) - since_ms >= max_age * 1000:
            return f"events are kept for {max_age:g} s, and the turn was accepted before that"
        if state.messages and _ms(state.first_ts) <= since_ms:
            return None  # openings are removed from the oldest on, and no other message is kept for longer
        if not state.messages:
            return _PURGED
        if self._may_have_been_full():
            return "the stream of events is full, and may have pushed the run's out"
        return None

    def may_have_outlived_records(self, said_at: float) -> str | None:
        """How records may be gone of a run whose newest message came at `said_at`; None if that cannot be."""
        kept = Kept.of(self.config)
        if kept is None or self.ts.timestamp() - said_at < kept.records:
            return None
        return f"what a run did is kept for {kept.records:g} s, and it said nothing since"

    def _may_have_been_full(self) -> bool:
        if self.config.get("discard") == "new":
            return False
        bounds = ((state_of, self.config.get(name, -1)) for state_of, name in (
            (self.state.bytes, "max_bytes"),
            (self.state.messages, "max_msgs"),
        ))  # fmt: skip
        return any(bound > 0 and used >= NEARLY_FULL * bound for used, bound in bounds)


_infos = msgspec.json.Decoder(StreamPast)


class EventsPast:
    """What a worker has seen of the stream of events since it was started."""

    def __init__(self, jetstream: JetStream, subjects: Subjects) -> None:
        self._jetstream = jetstream
        self._subjects = subjects
        self._gone_until = 0.0

    async def look(self) -> StreamPast:
        """As it is now; what it has lost is remembered. Raises `BrokerUnavailable`, `BrokerRefused`."""
        past = await read_state(self._jetstream, self._subjects.events_stream)
        if not past.state.messages:
            self._gone_until = max(self._gone_until, _ms(past.state.last_ts))
        return past

    async def check(self) -> None:
        """Whether the stream takes what runs say, as far as that can be seen without saying anything.

        Raises `BrokerRefused`, `BrokerUnavailable`; `NoResponders` where nobody takes it.
        """
        stream = self._subjects.events_stream
        try:
            past = await self.look()
        except BrokerRefused as error:
            if error.err_code == STREAM_NOT_FOUND:
                raise NoResponders(f"{stream} is not there") from None
            raise
        taken = past.config.get("subjects", [])
        wanted = (self._subjects.events, self._subjects.fences)
        if missing := [subject for subject in wanted if subject not in taken]:
            raise NoResponders(f"{stream} does not take {', '.join(missing)}")

    def may_have_lost(self, past: StreamPast, since_ms: int) -> str | None:
        """As of the stream's past, and by what was seen of it before others spoke again."""
        if since_ms <= self._gone_until:
            return _PURGED
        return past.may_have_lost(since_ms)


async def read_state(jetstream: JetStream, stream: str) -> StreamPast:
    """Raises `BrokerUnavailable`, `BrokerRefused`."""
    return _infos.decode(await jetstream.api(f"STREAM.INFO.{stream}"))


def _ms(time: datetime) -> float:
    return time.timestamp() * 1000
