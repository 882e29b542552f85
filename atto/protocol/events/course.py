"""Events of a run's course: attempts, input, children, waits."""

from datetime import datetime
from typing import Any

from atto.protocol.events.base import RecordEvent
from atto.protocol.events.steps import StateChange
from atto.protocol.messages import InputPart, Message, Usage
from atto.protocol.turns import Answer
from atto.protocol.waits import Wait


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
