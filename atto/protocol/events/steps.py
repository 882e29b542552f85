"""Events of steps: what a model says, and what the tools do that it asks for."""

from typing import Any

from msgspec import Struct

from atto.protocol.events.base import Delta, RecordEvent
from atto.protocol.messages import InputPart, Message, Usage


class TextDelta(Delta, frozen=True, kw_only=True, tag="text_delta"):
    """A piece of the model's text."""


class ReasoningDelta(Delta, frozen=True, kw_only=True, tag="reasoning_delta"):
    """A piece of the model's reasoning."""


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
    arguments: dict[str, Any] = {}  # noqa: RUF012 - msgspec copies it
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
