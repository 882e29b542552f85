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

from datetime import datetime
from typing import Any, TypeAlias, TypeGuard

from msgspec import Struct

from atto.protocol.messages import InputPart, Message, Usage
from atto.protocol.turns import SCHEMA_VERSION, Answer
from atto.protocol.waits import Wait


# `gc=False`: JSON has no cycles, so the collector, which took a fifth of a busy worker's CPU (measured), need
# not look at what is made of it.
class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="type"):
    """What all events share.

    Attributes:
        seq: The event's number within the run.
        path: Who speaks; empty for the run's own agent.

    """

    seq: int
    path: str = ""


class Delta(Event, frozen=True, kw_only=True):
    """A piece of what a model says in a step.

    Attributes:
        step: One model call and the tool calls that it asks for, from 1, within the path.
        text: The piece.

    """

    step: int
    text: str


class TextDelta(Delta, frozen=True, kw_only=True, tag="text_delta"):
    """A piece of the model's text."""


class ReasoningDelta(Delta, frozen=True, kw_only=True, tag="reasoning_delta"):
    """A piece of the model's reasoning."""


class RecordEvent(Event, frozen=True, kw_only=True):
    """What all records share.

    Attributes:
        first: The numbers from here to the record's own, exclusive, are deltas. 0: there are none.

    """

    first: int = 0


class RunStarted(RecordEvent, frozen=True, kw_only=True, tag="run_started"):
    """The first event of every attempt.

    Attributes:
        time: When, by the worker's clock.
        agent: The agent that answers.
        attempt: The attempt's number, as in `EventBatch`.
        app: The version of what the worker serves, if it has one.
        root: The run that began a chain of suspensions; empty for a run that is its own root.
        trace: The W3C `traceparent` of the run.

    """

    time: datetime
    agent: str
    attempt: int = 1
    app: str = ""
    root: str = ""
    trace: str = ""


class InputTaken(RecordEvent, frozen=True, kw_only=True, tag="input"):
    """Input that the run works on.

    Attributes:
        step: The first step that sees it.
        content: The input; of inline media only the type is kept.
        run_id: The run of the turn that brought it, if it is not this one.

    """

    step: int = 1
    content: str | tuple[InputPart, ...] = ""
    run_id: str = ""


class ModelCompleted(RecordEvent, frozen=True, kw_only=True, tag="model_completed"):
    """A model call ended: the whole message, whose text is that of the step's deltas, joined."""

    step: int
    message: Message
    usage: Usage = Usage()
    finish: str = ""


class ToolStarted(RecordEvent, frozen=True, kw_only=True, tag="tool_started"):
    """A tool is about to run.

    Attributes:
        step: The step whose model asked for it.
        call_id: The call's id, as the model gave it.
        name: The tool.
        arguments: What it is called with.
        malformed: What the model sent in the place of arguments where that was not a JSON object.

    """

    step: int
    call_id: str
    name: str
    arguments: dict[str, Any] = {}
    malformed: str | None = None


class StateChange(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What changed in the session's state, by top-level key."""

    set: dict[str, Any] = {}
    unset: tuple[str, ...] = ()


class ToolCompleted(RecordEvent, frozen=True, kw_only=True, tag="tool_completed"):
    """A tool call ended: its result, as the model will see it, and the state that it changed."""

    step: int
    call_id: str
    name: str
    content: str | tuple[InputPart, ...]
    is_error: bool = False
    change: StateChange = StateChange()


class StepRestarted(RecordEvent, frozen=True, kw_only=True, tag="step_restarted"):
    """Drop all that was said of this step and of later ones, on this path and below it: it is done again."""

    step: int
    reason: str


class StepCompleted(RecordEvent, frozen=True, kw_only=True, tag="step_completed"):
    """Something else that is done once ended: `value` is what it gave."""

    name: str
    value: Any = None


class AgentStarted(RecordEvent, frozen=True, kw_only=True, tag="agent_started"):
    """A child begins at `path`.

    Attributes:
        agent: Its name.
        speaks: Whether what it says is part of the run's answer.

    """

    agent: str
    speaks: bool = False


class AgentCompleted(RecordEvent, frozen=True, kw_only=True, tag="agent_completed"):
    """The child at `path` answered.

    Attributes:
        message: Its answer.
        usage: What its model calls cost, those of its own children included.
        change: What it changed in the session's state.

    """

    message: Message
    usage: Usage = Usage()
    change: StateChange = StateChange()


class HandedOff(
    RecordEvent, frozen=True, kw_only=True, tag="handoff", rename={"source": "from", "target": "to"}
):
    """From here on another agent answers."""

    source: str
    target: str


class WaitStarted(RecordEvent, frozen=True, kw_only=True, tag="wait_started"):
    """The run waits for an answer; other parts of it may go on."""

    wait: Wait


class WaitCompleted(RecordEvent, frozen=True, kw_only=True, tag="wait_completed"):
    """The answer to a wait was taken.

    Attributes:
        id: The wait.
        answer: The answer.
        run_id: The run that brought it.

    """

    id: str
    answer: Answer
    run_id: str = ""


class HistoryCompacted(RecordEvent, frozen=True, kw_only=True, tag="history_compacted"):
    """Models see a summary in the place of the oldest messages.

    Attributes:
        step: The step from which on they do.
        upto: How many of the oldest messages the summary stands for.
        cleared: How many of the oldest messages have their tool results left out.
        summary: In the place of those messages.
        before: Tokens of a request before it.
        after: Tokens of a request after it.
        usage: What the summary cost.

    """

    step: int
    upto: int = 0
    cleared: int = 0
    summary: str = ""
    before: int = 0
    after: int = 0
    usage: Usage = Usage()


class Custom(RecordEvent, frozen=True, kw_only=True, tag="custom"):
    """What an author's code says."""

    data: Any = None


class RunInterrupted(RecordEvent, frozen=True, kw_only=True, tag="run_interrupted"):
    """The worker let go of the run, or fell silent; another one goes on with it. Nothing is void yet."""

    reason: str


class RunCompleted(RecordEvent, frozen=True, kw_only=True, tag="run_completed"):
    """Terminal: the answer, committed to the session as `version`.

    Attributes:
        time: When, by the worker's clock.
        message: The answer.
        version: The version of the session that holds it.
        usage: What the run's model calls cost.
        output: The answer as a value, of an agent with a typed output.
        agent: The agent that answered, if it is not the one that began.

    """

    time: datetime
    message: Message
    version: int
    usage: Usage = Usage()
    output: Any = None
    agent: str = ""

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.message.text


class RunFailed(RecordEvent, frozen=True, kw_only=True, tag="run_failed"):
    """Terminal: no answer.

    Attributes:
        time: When, by the worker's clock.
        code: Why, for programs.
        message: Why, for people.
        retryable: Whether the same input may succeed later, under a new run id.
        version: The version of the session that holds what is kept of the run; 0 if nothing is.
        waits: The waits of the session that stood in the way.

    """

    time: datetime
    code: str
    message: str
    retryable: bool = False
    version: int = 0
    waits: tuple[str, ...] = ()


class RunCancelled(RecordEvent, frozen=True, kw_only=True, tag="run_cancelled"):
    """Terminal: cancelled by a caller.

    Attributes:
        time: When, by the worker's clock.
        reason: Why, for people.
        version: The version of the session that holds what is kept of the run; 0 if nothing is.

    """

    time: datetime
    reason: str = ""
    version: int = 0


class RunSuspended(RecordEvent, frozen=True, kw_only=True, tag="run_suspended"):
    """Terminal: the run waits; an answer goes on with it as a run of its own.

    Attributes:
        time: When, by the worker's clock.
        version: The version of the session that holds it.
        root: The run that began the chain of suspensions, by which it is answered.
        waits: What it waits for.

    """

    time: datetime
    version: int = 0
    root: str = ""
    waits: tuple[Wait, ...] = ()


class RunAbsorbed(RecordEvent, frozen=True, kw_only=True, tag="run_absorbed"):
    """Terminal: another run took the input in, and answers it.

    Attributes:
        time: When, by the worker's clock.
        into: The run that did.

    """

    time: datetime
    into: str


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
