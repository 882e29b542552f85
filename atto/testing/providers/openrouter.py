"""What OpenRouter refuses, or the provider behind it.

The model's name says who is behind: `anthropic/…` signs its reasoning, `google/gemini-3…` its calls.
"""

import json
from collections.abc import Iterator
from typing import Any, cast

from atto.testing.model_dialect import Said
from atto.testing.providers import chat_answers
from atto.testing.providers.chat_rules import (
    calls_of,
    list_at_most,
    names,
    results_follow_calls,
    results_have_calls,
    strict_schema,
)
from atto.testing.providers.rule import Ask, Json, Rule, Violation, is_sealed, seal
from atto.testing.providers.schemas import outside_anthropic, outside_gemini, outside_openai

_API = "https://openrouter.ai/docs/api-reference/chat-completion"
_PRESERVE = "https://openrouter.ai/docs/guides/best-practices/reasoning-tokens#preserving-reasoning-blocks"
_PROVIDER = "openrouter"


def error_body(violation: Violation) -> Json:
    """An error of the provider behind, wrapped."""
    raw = {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": violation.message},
    }
    return {
        "error": {
            "message": "Provider returned error",
            "code": violation.status,
            "metadata": {"raw": json.dumps(raw), "provider_name": "Anthropic"},
        }
    }


def _is_gemini(ask: Ask) -> bool:
    return ask.model.startswith("google/gemini-3")


def details_of(message: Json) -> list[Json]:
    """The reasoning details of a message."""
    found: Any = message.get("reasoning_details")
    return cast("list[Json]", found) if isinstance(found, list) else []


def _token(detail: Json) -> object:
    """What a detail is known by: its signature, what is encrypted, else its summary."""
    return detail.get("signature") or detail.get("data") or detail.get("summary")


def _signed(ask: Ask) -> Iterator[Violation]:
    for at, message in enumerate(ask.items("messages")):
        signed = [detail for detail in details_of(message) if detail.get("type") != "reasoning.summary"]
        for number, detail in enumerate(signed):
            content = detail.get("text") if detail.get("type") == "reasoning.text" else "encrypted"
            if not is_sealed(_token(detail), _PROVIDER, ask, content):
                yield Violation(f"messages.{at}.content.{number}: Invalid `signature` in `thinking` block")


def _preserved(ask: Ask) -> Iterator[Violation]:
    """Within a tool loop of Gemini's, the details come back with each call that it made."""
    for message in ask.items("messages"):
        if _is_gemini(ask) and calls_of(message) and not details_of(message) and _by_gemini(message):
            yield Violation(
                "Gemini models require OpenRouter reasoning details to be preserved in each request. Please "
                f"refer to our docs: {_PRESERVE}."
            )


def _by_gemini(message: Json) -> bool:
    return any(str(call.get("id")).startswith("tool_") for call in calls_of(message))


def _moved(ask: Ask) -> Iterator[Violation]:
    for at, message in enumerate(ask.items("messages")):
        tokens = [_token(detail) for detail in details_of(message)]
        if message.get("role") != "assistant" and tokens:
            yield Violation(f"messages.{at}: reasoning_details belong to the assistant")
        if len(set(map(str, tokens))) != len(tokens):
            yield Violation(
                f"messages.{at}.content.0: `thinking` or `redacted_thinking` blocks in the latest assistant "
                "message cannot be modified. These blocks must remain as they were in the original response."
            )


_SUBSETS = {"anthropic": outside_anthropic, "google": outside_gemini}


def _schema(ask: Ask) -> Iterator[Violation]:
    yield from strict_schema(_SUBSETS.get(ask.model.partition("/")[0], outside_openai))(ask)


RULES = (
    Rule(
        "reasoning_details that another model or nobody signed",
        "seen",
        "https://github.com/can1357/oh-my-pi/issues/3399",
        _signed,
    ),
    Rule(
        "a call of Gemini's without its reasoning_details",
        "seen",
        "https://github.com/microsoft/agent-framework/issues/2947",
        _preserved,
    ),
    Rule("reasoning_details twice, or not where they were", "documented", _PRESERVE, _moved),
    Rule(
        "a strict schema outside the subset of who serves the model",
        "inferred",
        "https://openrouter.ai/docs/structured-outputs",
        _schema,
    ),
    Rule("more than 4 stop sequences", "documented", _API, list_at_most("stop", 4)),
    Rule("a name outside [a-zA-Z0-9_-]{1,64}", "inferred", _API, names),
    Rule("a call without its result behind it", "inferred", _API, results_follow_calls),
    Rule("a result without its call before it", "inferred", _API, results_have_calls),
)


def answer(said: Said, ask: Ask) -> list[bytes]:
    """Reasoning comes twice: as `reasoning`, and as `reasoning_details` in pieces, the signature last."""
    thought: list[Json] = []
    for piece in said.reasoning:
        detail = {"type": "reasoning.text", "text": piece, "format": "anthropic-claude-v1", "index": 0}
        thought.append({"reasoning": piece, "reasoning_details": [detail]})
    if said.reasoning and not _is_gemini(ask):
        signature = seal(_PROVIDER, ask, "".join(said.reasoning))
        signed = {
            "type": "reasoning.text",
            "signature": signature,
            "format": "anthropic-claude-v1",
            "index": 0,
        }
        thought.append({"reasoning_details": [signed]})
    if _is_gemini(ask):
        thought = [
            {
                "reasoning": piece,
                "reasoning_details": [{"type": "reasoning.summary", "summary": piece, "index": 0}],
            }
            for piece in said.reasoning
        ]
        if said.calls:
            data = seal(_PROVIDER, ask, "encrypted")
            encrypted = {
                "type": "reasoning.encrypted",
                "data": data,
                "format": "google-gemini-v1",
                "index": 0,
            }
            thought.append({"reasoning_details": [encrypted]})
    make_id = (lambda: f"tool_{chat_answers.nine()}") if _is_gemini(ask) else chat_answers.call_id
    return chat_answers.stream(
        *thought,
        *chat_answers.texts(said),
        *chat_answers.calls(said, make_id),
        finish=chat_answers.finish(said),
    )
