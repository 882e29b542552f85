"""Turns and answers: what callers publish to `<ns>.turn.<session>` and `<ns>.answer.<session>`."""

from datetime import datetime
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from atto.protocol.messages import InputPart, Message

SCHEMA_VERSION = 2

OnBusy = Literal["enqueue", "reject", "interrupt", "steer"]
"""What becomes of a turn whose session runs or waits."""

MAX_REASON_BYTES = 1_024
"""Bytes of a cancellation's reason, as UTF-8, that are kept."""


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The answer to a wait: exactly one of `approve`, `value`, `error`, `cancel` and `expired`.

    Attributes:
        approve: Whether the call may run.
        arguments: What it is to run with instead of what the model asked for.
        say: What the model is told of a refusal.
        value: The answer to a question, or the result of a tool that the caller ran.
        error: Why the caller's tool failed.
        cancel: Ends the run that waits; the text is the reason.
        expired: The time to answer is over. Counts only if it comes from the schedule.

    """

    approve: bool | None = None
    arguments: dict[str, Any] | None = None
    say: str = ""
    value: Any | UnsetType = UNSET
    error: str | None = None
    cancel: str | None = None
    expired: bool = False

    def __post_init__(self) -> None:
        given = (
            self.approve is not None,
            self.value is not UNSET,
            self.error is not None,
            self.cancel is not None,
            self.expired,
        )
        if sum(given) != 1:
            raise ValueError(
                "an answer is exactly one of `approve`, `value`, `error`, `cancel` and `expired`"
            )
        if self.approve is not True and self.arguments is not None:
            raise ValueError("`arguments` go with `approve: true`")


class Resume(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Answers to what a suspended run waits for.

    Attributes:
        run_id: The root: the run that began the chain of suspensions.
        answers: By the ids of the waits.

    """

    run_id: str
    answers: dict[str, Answer]

    def __post_init__(self) -> None:
        if not self.answers:
            raise ValueError("`answers` is empty")


class Turn(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One input to a session, or an answer to what it waits for. The smallest one is `{"input": "hi"}`.

    Attributes:
        input: Text, or parts.
        run_id: Names the run; without it the place in the stream does.
        agent: Who is asked; the session's active agent by default.
        on_busy: What becomes of it while the session runs or waits.
        resume: Takes the place of `input`, `agent` and `on_busy`, in a turn to `<ns>.answer.<session>`.
        expires: The run ends as failed (`expired`) if it has not ended by then; RFC 3339 with an offset.
        metadata: The caller's own labels; tools can read them.
        v: The schema version.

    """

    input: str | tuple[InputPart, ...] = ""
    run_id: str | None = None
    agent: str = ""
    on_busy: OnBusy = "enqueue"
    resume: Resume | None = None
    expires: datetime | None = None
    metadata: dict[str, str] = {}
    v: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.resume is None and not self.input:
            raise ValueError("`input` is missing or empty")
        if self.resume is not None and (self.input or self.agent or self.on_busy != "enqueue"):
            raise ValueError("`input`, `agent` and `on_busy` do not go with `resume`")
        if self.expires is not None and self.expires.tzinfo is None:
            raise ValueError("`expires` needs an offset from UTC, such as `2030-01-01T00:00:00Z`")

    def message(self) -> Message:
        """The turn as the user's message in the history."""
        return Message.user(self.input)


class Cancel(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Published to `<ns>.cancel.<session>.<run>`: end the run, whether it is queued or executing.

    1,024 bytes of `reason` are kept.
    """

    reason: str = ""
    v: int = SCHEMA_VERSION


def cut_reason(reason: str) -> str:
    """As much of a reason as is kept, in whole characters."""
    if len(reason) * 4 <= MAX_REASON_BYTES and reason.isascii():
        return reason
    return reason[:MAX_REASON_BYTES].encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore")
