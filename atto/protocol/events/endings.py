"""Terminal events: how a run ended."""

from datetime import datetime
from typing import Any

from atto.protocol.events.base import RecordEvent
from atto.protocol.messages import Message, Usage
from atto.protocol.waits import Wait


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
