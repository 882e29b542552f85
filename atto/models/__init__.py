"""Models: the protocol, a scripted one, and adapters for providers, loaded when they are used."""

from importlib import import_module
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
from atto.models.named import named
from atto.models.scripted import Answer, Fail, Pause, ScriptedModel, Stall, call

if TYPE_CHECKING:
    from atto.models.anthropic import Anthropic
    from atto.models.compatible import azure, ollama, vllm
    from atto.models.gemini import Gemini
    from atto.models.openai import OpenAIChat
    from atto.models.openai_responses import OpenAIResponses

__all__ = [
    "Answer",
    "Anthropic",
    "Assembled",
    "Assembler",
    "Chunk",
    "Closeable",
    "Fail",
    "FinishChunk",
    "Gemini",
    "Model",
    "ModelRequest",
    "OpenAIChat",
    "OpenAIResponses",
    "PartDone",
    "Pause",
    "ReasoningChunk",
    "ScriptedModel",
    "Stall",
    "TextChunk",
    "ToolCallChunk",
    "ToolSpec",
    "UsageChunk",
    "azure",
    "call",
    "named",
    "ollama",
    "vllm",
]


_LAZY = {
    "Anthropic": "anthropic",
    "Gemini": "gemini",
    "OpenAIChat": "openai",
    "OpenAIResponses": "openai_responses",
    "azure": "compatible",
    "ollama": "compatible",
    "vllm": "compatible",
}
"""Adapters are loaded when they are used: each by its module."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"atto.models.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
