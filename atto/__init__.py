"""atto: LLM agents as durable, ordered, streaming sessions over NATS JetStream.

What authors and callers name most often; loaded when it is used, so that a client loads no agent.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from atto.agents import Agent, State, Tool, ToolContext, ToolError, tool
    from atto.models import Anthropic, Gemini, Model, OpenAIChat, OpenAIResponses, ScriptedModel
    from atto.protocol import errors, events, messages
    from atto.protocol.messages import FilePart, ImagePart, Message, TextPart

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "Anthropic",
    "FilePart",
    "Gemini",
    "ImagePart",
    "Message",
    "Model",
    "OpenAIChat",
    "OpenAIResponses",
    "ScriptedModel",
    "State",
    "TextPart",
    "Tool",
    "ToolContext",
    "ToolError",
    "errors",
    "events",
    "messages",
    "tool",
]

_HOMES = {
    **dict.fromkeys(("Agent", "State", "Tool", "ToolContext", "ToolError", "tool"), "atto.agents"),
    **dict.fromkeys(
        ("Anthropic", "Gemini", "Model", "OpenAIChat", "OpenAIResponses", "ScriptedModel"), "atto.models"
    ),
    **dict.fromkeys(("FilePart", "ImagePart", "Message", "TextPart"), "atto.protocol.messages"),
}
_MODULES = ("errors", "events", "messages")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"atto.protocol.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
