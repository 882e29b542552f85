"""Models named by strings: `openai:gpt-5`."""

import os
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from atto.models.base import Model
from atto.protocol.errors import InvalidAgent


def named(name: str) -> Model:
    """The model of a name such as `openai:gpt-5`: who serves it, and what it is called there.

    | prefix | what it makes | from the environment |
    | --- | --- | --- |
    | `openai` | `OpenAIResponses` | `OPENAI_API_KEY`, `OPENAI_BASE_URL` |
    | `openai-chat` | `OpenAIChat` | the same |
    | `anthropic` | `Anthropic` | `ANTHROPIC_API_KEY`, `ANTHROPIC_BASE_URL` |
    | `gemini` | `Gemini` at AI Studio | `GEMINI_API_KEY`, `GOOGLE_GEMINI_BASE_URL` |
    | `vertex` | `Gemini` at Vertex AI | `GOOGLE_CLOUD_PROJECT`, `GOOGLE_CLOUD_LOCATION` |
    | `azure`, `azure-chat` | `azure(…)` | `AZURE_OPENAI_ENDPOINT`, `AZURE_OPENAI_API_KEY` |
    | `ollama` | `ollama(…)` | `OLLAMA_HOST` |
    | `vllm` | `vllm(…)` | `VLLM_BASE_URL` |

    Raises `InvalidAgent` for another prefix, or if a key or an address is missing, and `MissingExtra` if the
    provider's package is.
    """
    prefix, colon, model = name.partition(":")
    prefix, model = prefix.strip().lower(), model.strip()
    if not colon:
        raise InvalidAgent(f"the model {name!r} does not say who serves it: write, say, `openai:{name}`")
    if prefix not in _MAKERS:
        raise InvalidAgent(f"the model {name!r}: nobody is called {prefix!r} here{_hint(prefix)}")
    if not model:
        raise InvalidAgent(f"the model {name!r} has no name: write, say, `{prefix}:NAME`")
    return _MAKERS[prefix](model)


def _maker(module: str, attribute: str, **fields: Any) -> Callable[[str], Model]:
    """Makes a model by what is imported only then."""

    def make(model: str) -> Model:
        return getattr(import_module(f"atto.models.{module}"), attribute)(model, **fields)

    return make


def _vertex(model: str) -> Model:
    location = os.environ.get("GOOGLE_CLOUD_LOCATION") or "global"  # what is given says that it is Vertex AI
    return _maker("gemini", "Gemini", location=location)(model)


def _hint(prefix: str) -> str:
    alike = get_close_matches(prefix, _MAKERS, n=1)
    known = ", ".join(_MAKERS)
    return f"; did you mean {alike[0]!r}? Known are {known}" if alike else f"; known are {known}"


_MAKERS: dict[str, Callable[[str], Model]] = {
    "openai": _maker("openai_responses", "OpenAIResponses"),
    "openai-chat": _maker("openai", "OpenAIChat"),
    "anthropic": _maker("anthropic", "Anthropic"),
    "gemini": _maker("gemini", "Gemini"),
    "vertex": _vertex,
    "azure": _maker("compatible", "azure"),
    "azure-chat": _maker("compatible", "azure", chat=True),
    "ollama": _maker("compatible", "ollama"),
    "vllm": _maker("compatible", "vllm"),
}
