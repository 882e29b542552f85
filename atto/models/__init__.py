"""Models: the protocol, a scripted one, and adapters for providers, loaded when they are used."""

from typing import TYPE_CHECKING, Any

from atto.models.assemble import Assembled, Assembler
from atto.models.base import (
    Chunk,
    Closeable,
    FinishChunk,
    Model,
    ModelRequest,
    PartDone,
    ReasoningChunk,
    TextChunk,
    ToolCallChunk,
    ToolSpec,
    UsageChunk,
)
from atto.models.scripted import Answer, Fail, Pause, ScriptedModel, Stall, call

if TYPE_CHECKING:
    from atto.models.openai import OpenAIChat

__all__ = [
    "Answer",
    "Assembled",
    "Assembler",
    "Chunk",
    "Closeable",
    "Fail",
    "FinishChunk",
    "Model",
    "ModelRequest",
    "OpenAIChat",
    "PartDone",
    "Pause",
    "ReasoningChunk",
    "ScriptedModel",
    "Stall",
    "TextChunk",
    "ToolCallChunk",
    "ToolSpec",
    "UsageChunk",
    "call",
]


def __getattr__(name: str) -> Any:
    if name == "OpenAIChat":
        from atto.models.openai import OpenAIChat  # noqa: PLC0415 - adapters are loaded when they are used

        return OpenAIChat
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
