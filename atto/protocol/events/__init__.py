"""Events: what a run tells the world, numbered 1, 2, 3 … within the run.

They travel to `<ns>.event.<session>.<run>`, several in one message (`EventBatch`). Those that end a model
call or a tool call hold all that is needed to go on after them, so the same log streams, resumes a
listener, recovers a crashed run, and remains as the record of it.

There are two kinds. *Deltas* are pieces of what a record will say as a whole, and are kept for minutes only.
All others are *records*. A record tells by `first` which numbers before its own are deltas, so that deltas
that have expired leave no hole.

A run that was delivered again is a new *attempt*. It goes on after the last completed call and numbers its
events from `since` on; what older attempts said from that number on is void. `StepRestarted` voids
all that was said of a step and of those after it.

`path` tells who speaks: empty for the run's own agent, else the child that it leads to
(`atto.protocol.paths`).
"""

from typing import Any, TypeAlias, TypeGuard

from msgspec import Struct

from atto.protocol.events.base import Delta, Event, RecordEvent
from atto.protocol.events.course import (
    AgentCompleted,
    AgentStarted,
    Custom,
    HandedOff,
    HistoryCompacted,
    InputTaken,
    RunInterrupted,
    RunStarted,
    WaitCompleted,
    WaitStarted,
)
from atto.protocol.events.endings import RunAbsorbed, RunCancelled, RunCompleted, RunFailed, RunSuspended
from atto.protocol.events.steps import (
    ModelCompleted,
    ReasoningDelta,
    StateChange,
    StepCompleted,
    StepRestarted,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from atto.protocol.turns import SCHEMA_VERSION

__all__ = [
    "AgentCompleted",
    "AgentStarted",
    "AnyEvent",
    "Custom",
    "Delta",
    "Event",
    "EventBatch",
    "HandedOff",
    "HistoryCompacted",
    "InputTaken",
    "ModelCompleted",
    "ReasoningDelta",
    "RecordEvent",
    "RunAbsorbed",
    "RunCancelled",
    "RunCompleted",
    "RunFailed",
    "RunInterrupted",
    "RunStarted",
    "RunSuspended",
    "StateChange",
    "StepCompleted",
    "StepRestarted",
    "TerminalEvent",
    "TextDelta",
    "ToolCompleted",
    "ToolStarted",
    "UnknownEvent",
    "WaitCompleted",
    "WaitStarted",
    "is_delta",
    "is_terminal",
]


class UnknownEvent(RecordEvent, frozen=True, kw_only=True, tag="unknown"):
    """An event of a type that this release does not know; a newer one wrote it. `body` is its JSON."""

    kind: str
    body: dict[str, Any]


TerminalEvent: TypeAlias = RunCompleted | RunFailed | RunCancelled | RunSuspended | RunAbsorbed
AnyEvent: TypeAlias = (
    RunStarted
    | InputTaken
    | TextDelta
    | ReasoningDelta
    | ModelCompleted
    | ToolStarted
    | ToolCompleted
    | StepRestarted
    | StepCompleted
    | AgentStarted
    | AgentCompleted
    | HandedOff
    | WaitStarted
    | WaitCompleted
    | HistoryCompacted
    | Custom
    | RunInterrupted
    | TerminalEvent
    | UnknownEvent
)


# Asked of every event, and `isinstance` of four classes of structs takes ten times as long.
_TERMINAL = frozenset((RunCompleted, RunFailed, RunCancelled, RunSuspended, RunAbsorbed))
_DELTAS = frozenset((TextDelta, ReasoningDelta))


def is_delta(event: AnyEvent) -> TypeGuard[TextDelta | ReasoningDelta]:
    """Whether a later record says all that the event does."""
    return type(event) in _DELTAS


def is_terminal(event: AnyEvent) -> TypeGuard[TerminalEvent]:
    """Whether the run says nothing after this event."""
    return type(event) in _TERMINAL


class EventBatch(Struct, frozen=True, kw_only=True, gc=False):
    """One message on an event subject: events with consecutive numbers, all of one attempt.

    `attempt`: 1 for the first; a later one has a higher number, not always the next.
    `since`: the number of this attempt's first event (1 for the first attempt).
    """

    v: int = SCHEMA_VERSION
    attempt: int = 1
    since: int = 1
    events: tuple[AnyEvent, ...]
