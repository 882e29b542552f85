"""Turns: what callers publish to `<ns>.turn.<session>`."""

from datetime import datetime

from msgspec import Struct

from atto.protocol.messages import InputPart, Message

SCHEMA_VERSION = 1


class Turn(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One input to a session. The smallest valid turn is `{"input": "hi"}`.

    `run_id`: names the run; without it the header `Nats-Msg-Id` does, else the place in the stream.
    `expires`: the run ends as failed (`expired`) if it has not ended by then; RFC 3339 with an offset.
    `metadata`: the caller's own labels; tools can read them.
    `v`: the schema version.
    """

    input: str | tuple[InputPart, ...]
    run_id: str | None = None
    expires: datetime | None = None
    metadata: dict[str, str] = {}
    v: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if not self.input:
            raise ValueError("`input` is empty")
        if self.expires is not None and self.expires.tzinfo is None:
            raise ValueError("`expires` needs an offset from UTC, such as `2030-01-01T00:00:00Z`")

    def message(self) -> Message:
        """The turn as the user's message in the history."""
        return Message.user(self.input)


MAX_REASON_BYTES = 1_024
"""Bytes of a cancellation's reason, as UTF-8, that are kept."""


def cut_reason(reason: str) -> str:
    """As much of a reason as is kept, in whole characters."""
    if len(reason) * 4 <= MAX_REASON_BYTES and reason.isascii():
        return reason
    return reason[:MAX_REASON_BYTES].encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")


class Cancel(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Published to `<ns>.cancel.<session>.<run>`: end the run, whether it is queued or executing.

    1,024 bytes of `reason` are kept.
    """

    reason: str = ""
    v: int = SCHEMA_VERSION
