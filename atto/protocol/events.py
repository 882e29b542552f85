"""Events: what a run tells the world, numbered 1, 2, 3 … within the run.

They travel to `<ns>.event.<session>.<run>`, several in one message (`EventBatch`). Those that end a model
call or a tool call hold all that is needed to go on after them, so the same log streams, resumes a
listener, recovers a crashed run, and remains as the record of it.

A run that was delivered again is a new *attempt*. It goes on after the last completed call and numbers its
events from `since` on; what older attempts said from that number on is void. `StepRestarted` voids
all that was said of a step and of those after it.
"""

from datetime import datetime
from typing import Any, TypeAlias, TypeGuard

from msgspec import Struct

from atto.protocol.messages import InputPart, Message, ToolCallPart, Usage
from atto.protocol.turns import SCHEMA_VERSION


# `gc=False`: JSON has no cycles, so the collector, which took a fifth of a busy worker's CPU (measured), need
# not look at what is made of it.
class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="type"):
    """What all events share: their number within the run."""

    seq: int


class RunStarted(Event, frozen=True, kw_only=True, tag="run_started"):
    """The first event of every attempt."""

    time: datetime
    agent: str
    attempt: int = 1


class TextDelta(Event, frozen=True, kw_only=True, tag="text_delta"):
    """A piece of the model's text."""

    step: int
    text: str


class ReasoningDelta(Event, frozen=True, kw_only=True, tag="reasoning_delta"):
    """A piece of the model's reasoning."""

    step: int
    text: str


class ModelCompleted(Event, frozen=True, kw_only=True, tag="model_completed"):
    """A model call ended: the whole message, whose text is that of the step's deltas, joined."""

    step: int
    message: Message
    usage: Usage = Usage()
    finish: str = ""


class ToolStarted(Event, frozen=True, kw_only=True, tag="tool_started"):
    """A tool is about to run."""

    step: int
    call: ToolCallPart


class StateChange(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What changed in the session's state, by top-level key."""

    set: dict[str, Any] = {}
    unset: tuple[str, ...] = ()


class ToolCompleted(Event, frozen=True, kw_only=True, tag="tool_completed"):
    """A tool call ended: its result, as the model will see it, and the state that it changed."""

    step: int
    call_id: str
    name: str
    content: str | tuple[InputPart, ...]
    is_error: bool = False
    change: StateChange = StateChange()


class StepRestarted(Event, frozen=True, kw_only=True, tag="step_restarted"):
    """Drop all that was said of this step and of later ones: it is done again."""

    step: int
    reason: str


class AgentEvent(Event, frozen=True, kw_only=True, tag="agent_event"):
    """What another agent says that was asked in this run: by the tool call `call_id` of `step`.

    `event` is numbered as this one, and its `step` is the asked agent's own. Its deltas are not the run's:
    they make the result of the tool call. A `StepRestarted` of this step voids these events too.
    """

    step: int
    call_id: str
    agent: str
    event: "InnerEvent"


InnerEvent: TypeAlias = (
    TextDelta | ReasoningDelta | ModelCompleted | ToolStarted | ToolCompleted | StepRestarted | AgentEvent
)


class RunInterrupted(Event, frozen=True, kw_only=True, tag="run_interrupted"):
    """The worker let go of the run, or fell silent; another one goes on with it. Nothing is void yet."""

    reason: str


class RunCompleted(Event, frozen=True, kw_only=True, tag="run_completed"):
    """Terminal: the answer, committed to the session as `version`."""

    time: datetime
    message: Message
    version: int
    usage: Usage = Usage()

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.message.text


class RunFailed(Event, frozen=True, kw_only=True, tag="run_failed"):
    """Terminal: no answer, nothing committed. `code` is for programs, `message` for people."""

    time: datetime
    code: str
    message: str
    retryable: bool = False


class RunCancelled(Event, frozen=True, kw_only=True, tag="run_cancelled"):
    """Terminal: cancelled by a caller, nothing committed."""

    time: datetime
    reason: str = ""


class RunSuspended(Event, frozen=True, kw_only=True, tag="run_suspended"):
    """Terminal: the run waits for something that a later turn will bring. Reserved: no worker says it yet."""

    time: datetime
    reason: str = ""


class UnknownEvent(Event, frozen=True, kw_only=True, tag="unknown"):
    """An event of a type that this release does not know; a newer one wrote it. `body` is its JSON."""

    kind: str
    body: dict[str, Any]


TerminalEvent: TypeAlias = RunCompleted | RunFailed | RunCancelled | RunSuspended
AnyEvent: TypeAlias = (
    RunStarted
    | TextDelta
    | ReasoningDelta
    | ModelCompleted
    | ToolStarted
    | ToolCompleted
    | StepRestarted
    | AgentEvent
    | RunInterrupted
    | TerminalEvent
    | UnknownEvent
)


# Asked of every event, and `isinstance` of four classes of structs takes ten times as long.
_TERMINAL = frozenset((RunCompleted, RunFailed, RunCancelled, RunSuspended))


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
