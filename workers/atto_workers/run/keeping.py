"""For how long the stream of events keeps what runs say, by kind: each message says so itself."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

from atto.protocol import codec
from atto.protocol.events import RunStarted, is_delta

DELTAS_MAX_AGE = 600
"""Seconds for which messages of nothing but deltas are kept: until all who listen have heard them."""
RECORDS_MAX_AGE = 24 * 3600
"""Seconds for which a run can be replayed, and resumed after a crash."""
OPENINGS_MAX_AGE = 7 * 24 * 3600
"""Seconds for which it is known that a run began."""
MARGIN = 3600
"""Seconds for which the stream itself keeps messages beyond that."""

KEPT_KEY = "atto-kept"
"""In the metadata of the stream: the three ages, in seconds."""

TTL = "Nats-TTL"
_DELTAS = (b'{"type":"text_delta"', b'{"type":"reasoning_delta"')


class Kept(NamedTuple):
    """Seconds, by kind."""

    deltas: float = DELTAS_MAX_AGE
    records: float = RECORDS_MAX_AGE
    openings: float = OPENINGS_MAX_AGE

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self | None:
        """As of a stream's configuration; None for one of an older version, which has one age."""
        metadata: dict[str, str] = config.get("metadata") or {}
        said = metadata.get(KEPT_KEY)
        if not said or not config.get("allow_msg_ttl"):
            return None
        return cls(*map(float, said.split()))

    @classmethod
    def given(cls, *, deltas: float | None, records: float | None) -> Self:
        """What is not given has its default."""
        records = RECORDS_MAX_AGE if records is None else records
        deltas = DELTAS_MAX_AGE if deltas is None else deltas
        return cls(min(deltas, records), records, max(OPENINGS_MAX_AGE, records))

    @property
    def stream(self) -> float:
        """Seconds for which the stream keeps messages that do not say so themselves."""
        return self.openings + MARGIN

    def __str__(self) -> str:
        return " ".join(f"{age:g}" for age in self)


class Lifetimes:
    """The headers that say so: empty where the stream takes none."""

    def __init__(self, kept: Kept | None = None) -> None:
        self.is_said = kept is not None
        self.deltas: Mapping[str, str] = {}
        self.records: Mapping[str, str] = {}
        self.openings: Mapping[str, str] = {}
        if kept is not None:
            self.deltas, self.records, self.openings = ({TTL: str(math.ceil(age))} for age in kept)

    def of(self, events: Iterable[bytes]) -> Mapping[str, str]:
        """Of a message with these events, as they are encoded here."""
        for event in events:
            if not event.startswith(_DELTAS):
                return self.records
        return self.deltas

    def of_message(self, data: bytes) -> Mapping[str, str]:
        """Of a message that somebody else wrote."""
        events = codec.decode_batch(data).events
        if any(isinstance(event, RunStarted) for event in events):
            return self.openings
        return self.deltas if events and all(map(is_delta, events)) else self.records
