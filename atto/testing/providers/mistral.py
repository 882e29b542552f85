"""What Mistral refuses."""

import re
from collections.abc import Iterator
from typing import Any, cast

from atto.testing.model_dialect import Said
from atto.testing.providers import chat_answers
from atto.testing.providers.chat_rules import calls, calls_of, names
from atto.testing.providers.rule import Ask, Json, Rule, Violation

_API = "https://docs.mistral.ai/api/#tag/chat"
_COMMON = (
    "https://github.com/mistralai/mistral-common/blob/main/src/mistral_common/protocol/instruct/validator.py"
)
_FUNCTIONS = "https://docs.mistral.ai/capabilities/function_calling"
_ID = re.compile(r"[a-zA-Z0-9]{9}")
_TAKEN = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls", "prefix"},
    "tool": {"role", "content", "tool_call_id", "name"},
}
_FIELDS = {
    "model",
    "messages",
    "temperature",
    "top_p",
    "max_tokens",
    "stream",
    "stream_options",
    "stop",
    "random_seed",
    "metadata",
    "response_format",
    "tools",
    "tool_choice",
    "presence_penalty",
    "frequency_penalty",
    "n",
    "prediction",
    "parallel_tool_calls",
    "prompt_mode",
    "reasoning_effort",
    "guardrails",
    "prompt_cache_key",
    "safe_prompt",
}
_AFTER = {
    "system": {"system", "user", "assistant"},
    "user": {"system", "user", "assistant"},
    "assistant": {"user", "assistant", "system"},
    "calls": {"tool"},
    "tool": {"tool", "assistant"},
}


def error_body(violation: Violation) -> Json:
    """An error as Mistral words it: a request of the wrong shape gets a list of faults."""
    if violation.status == 422:
        fault = {
            "type": "extra_forbidden",
            "loc": ["body", *str(violation.param).split(".")],
            "msg": violation.message,
        }
        return {
            "object": "error",
            "message": {"detail": [fault]},
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    return {
        "object": "error",
        "message": violation.message,
        "type": "invalid_request_error",
        "param": None,
        "code": violation.code,
    }


def reasons(model: str) -> bool:
    """Whether the model is one of those that reason."""
    return model.startswith("magistral")


def _fields(ask: Ask) -> Iterator[Violation]:
    for name in sorted(ask.body.keys() - _FIELDS):
        yield Violation("Extra inputs are not permitted", name, status=422)
    for at, message in enumerate(ask.items("messages")):
        role = str(message.get("role"))
        for name in sorted(message.keys() - _TAKEN.get(role, set())):
            yield Violation("Extra inputs are not permitted", f"messages.{at}.{role}.{name}", status=422)


def _ids(ask: Ask) -> Iterator[Violation]:
    results = [message["tool_call_id"] for message in ask.items("messages") if "tool_call_id" in message]
    for call_id in [*(call.get("id") for _, call in calls(ask)), *results]:
        if not _ID.fullmatch(str(call_id)):
            yield Violation(
                f"Tool call id was {call_id} but must be a-z, A-Z, 0-9, with a length of 9.", code="3280"
            )


def _order(ask: Ask) -> Iterator[Violation]:
    before = "system"
    for message in ask.items("messages"):
        role = str(message.get("role"))
        if role not in _AFTER[before]:
            was = "assistant" if before == "calls" else before
            yield Violation(f"Unexpected role '{role}' after role '{was}'", code="3230")
        before = "calls" if calls_of(message) else role


def _last(ask: Ask) -> Iterator[Violation]:
    messages = ask.items("messages")
    last = cast("Json", messages[-1]) if messages else {}
    if last.get("role") not in {"user", "tool"} and not last.get("prefix"):
        yield Violation(
            "Expected last role User or Tool (or Assistant with prefix True) for serving but got "
            f"{last.get('role')}",
            code="3230",
        )


def _counts(ask: Ask) -> Iterator[Violation]:
    wanted: list[Any] = []
    found: list[Any] = []
    for message in [*ask.items("messages"), {"role": "end"}]:
        if message["role"] == "tool":
            found.append(message.get("tool_call_id"))
            continue
        if sorted(map(str, wanted)) != sorted(map(str, found)):
            yield Violation("Not the same number of function calls and responses", code="3230")
        wanted, found = [call.get("id") for call in calls_of(message)], []


def _empty(ask: Ask) -> Iterator[Violation]:
    for message in ask.items("messages"):
        if message.get("role") == "assistant" and not (calls_of(message) or message.get("content")):
            yield Violation(
                "Assistant message must have either content or tool_calls, but not none.", code="3240"
            )


def _thinking(ask: Ask) -> Iterator[Violation]:
    for at, message in enumerate(ask.items("messages")):
        content = message.get("content")
        listed = cast("list[Json]", content) if isinstance(content, list) else []
        if any(part.get("type") == "thinking" for part in listed) and not reasons(ask.model):
            yield Violation(f"Thinking chunks are not supported by this model (messages[{at}])", code="3051")


RULES = (
    Rule(
        "a field that it does not know", "seen", "https://github.com/charmbracelet/crush/issues/1590", _fields
    ),
    Rule(
        "an id that is not nine letters and digits",
        "seen",
        "https://github.com/langchain-ai/langchain/pull/24668",
        _ids,
    ),
    Rule(
        "a role behind one that it may not follow",
        "seen",
        "https://github.com/BerriAI/litellm/issues/17761",
        _order,
    ),
    Rule(
        "a history that the assistant ends", "seen", "https://github.com/0xPlaygrounds/rig/pull/1130", _last
    ),
    Rule("as many results as there are not calls", "documented", _COMMON, _counts),
    Rule("an answer without content or calls", "documented", _COMMON, _empty),
    Rule("a name outside [a-zA-Z0-9_-]{1,64}", "documented", _COMMON, names),
    Rule(
        "thinking to a model without", "inferred", "https://docs.mistral.ai/capabilities/reasoning", _thinking
    ),
)


def answer(said: Said, ask: Ask) -> list[bytes]:
    """Reasoning comes as a list of content with `thinking`, each call whole, ids of nine."""
    thought = [
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": piece}]}]}
        for piece in said.reasoning
        if reasons(ask.model)
    ]
    calls_made = chat_answers.whole_calls(said, chat_answers.nine)
    return chat_answers.stream(
        *thought, *chat_answers.texts(said), *calls_made, finish=chat_answers.finish(said)
    )
