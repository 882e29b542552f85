"""The models of the pairs: each adapter as it would be used, in front of a rule server."""

from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from atto.models import Anthropic, Gemini, OpenAIChat, OpenAIResponses
from atto.models.base import Model
from atto.testing.providers import RuleServer

_BUDGET = {"thinking": {"type": "enabled", "budget_tokens": 2000}}


@dataclass(frozen=True)
class Family:
    """`make`: the model, with a client whose requests go to the rule server. `reasons`: it shows what it
    thought; `takes`: images.
    """

    make: Callable[[Any], Model]
    reasons: bool = False
    takes_images: bool = True


def _openai(kind, model, address="https://api.openai.com/v1", *, key="one", **fields):
    def make(http):
        from openai import AsyncOpenAI

        client = AsyncOpenAI(api_key=key, base_url=address, http_client=http)
        return kind(model, client=client, account=key, **fields)

    return make


def _anthropic(model, *, key="one", **fields):
    def make(http):
        from anthropic import AsyncAnthropic

        client = AsyncAnthropic(api_key=key, base_url="https://api.anthropic.com", http_client=http)
        return Anthropic(model, client=client, account=key, **fields)

    return make


def _gemini(model, *, key="one"):
    return lambda http: Gemini(model, api_key=key, account=key, client=http)


FAMILIES: dict[str, Family] = {
    "responses": Family(_openai(OpenAIResponses, "gpt-5.2"), reasons=True),
    "responses-mini": Family(_openai(OpenAIResponses, "gpt-5-mini"), reasons=True),
    "responses-elsewhere": Family(_openai(OpenAIResponses, "gpt-5.2", key="two"), reasons=True),
    "responses-plain": Family(_openai(OpenAIResponses, "gpt-4.1")),
    "chat": Family(_openai(OpenAIChat, "gpt-5.2")),
    "deepseek": Family(
        _openai(OpenAIChat, "deepseek-v4-pro", "https://api.deepseek.com"), reasons=True, takes_images=False
    ),
    "openrouter": Family(
        _openai(OpenAIChat, "anthropic/claude-sonnet-4.5", "https://openrouter.ai/api/v1"), reasons=True
    ),
    "openrouter-gemini": Family(
        _openai(OpenAIChat, "google/gemini-3-pro", "https://openrouter.ai/api/v1"), reasons=True
    ),
    "groq": Family(_openai(OpenAIChat, "qwen/qwen3-32b", "https://api.groq.com/openai/v1"), reasons=True),
    "mistral": Family(_openai(OpenAIChat, "magistral-medium", "https://api.mistral.ai/v1"), reasons=True),
    "mistral-plain": Family(_openai(OpenAIChat, "mistral-large", "https://api.mistral.ai/v1")),
    "anthropic-budget": Family(_anthropic("claude-opus-4-5", options=_BUDGET), reasons=True),
    "anthropic": Family(_anthropic("claude-sonnet-5-5"), reasons=True),
    "anthropic-plain": Family(_anthropic("claude-haiku-4-5")),
    "gemini-3": Family(_gemini("gemini-3-pro"), reasons=True),
    "gemini-3-flash": Family(_gemini("gemini-3-flash"), reasons=True),
    "gemini-2.0": Family(_gemini("gemini-2.0-flash")),
}


@asynccontextmanager
async def before(server: RuleServer, *names: str):
    """The models of these families before the server."""
    async with server.client() as http:
        models = [FAMILIES[name].make(http) for name in names]
        yield models
        for model in models:
            await model.aclose()
