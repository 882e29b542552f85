"""What Groq refuses."""

from collections.abc import Iterator
from typing import cast

from atto.testing.model_dialect import Said
from atto.testing.providers import chat_answers
from atto.testing.providers.chat_rules import (
    list_at_most,
    names,
    results_are_text,
    results_follow_calls,
    results_have_calls,
    strict_schema,
)
from atto.testing.providers.rule import Ask, Json, Rule, Violation
from atto.testing.providers.schemas import outside_openai

_API = "https://console.groq.com/docs/api-reference#chat-create"
_REASONING = "https://console.groq.com/docs/reasoning"
_TAKEN = {
    "system": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "tool_calls", "reasoning", "function_call"},
    "tool": {"role", "content", "tool_call_id", "name"},
}
_REFUSED = {"logit_bias", "logprobs", "top_logprobs", "prompt_cache_key", "prompt_cache_retention"}


def error_body(violation: Violation) -> Json:
    """An error as Groq words it."""
    return {"error": {"message": violation.message, "type": "invalid_request_error"}}


def reasons(model: str) -> bool:
    """Whether the model is one of those that reason."""
    return any(name in model for name in ("gpt-oss", "qwen3", "deepseek-r1"))


def _fields(ask: Ask) -> Iterator[Violation]:
    for at, message in enumerate(ask.items("messages")):
        role = str(message.get("role"))
        for name in message.keys() - _TAKEN.get(role, set()):
            yield Violation(
                f"'messages.{at}' : for 'role:{role}' the following must be satisfied[('messages.{at}' : "
                f"property '{name}' is unsupported)]"
            )


def _parameters(ask: Ask) -> Iterator[Violation]:
    for name in sorted(ask.body.keys() & _REFUSED):
        yield Violation(f"property '{name}' is unsupported")


def _n(ask: Ask) -> Iterator[Violation]:
    if ask.body.get("n", 1) != 1:
        yield Violation("'n' : number must be at most 1")


def _reasoning_of_others(ask: Ask) -> Iterator[Violation]:
    for at, message in enumerate(ask.items("messages")):
        if "reasoning" in message and not reasons(ask.model):
            yield Violation(f"'messages.{at}' : reasoning is not supported with this model")


def _formats(ask: Ask) -> Iterator[Violation]:
    if "include_reasoning" in ask.body and "reasoning_format" in ask.body:
        yield Violation("cannot specify both `include_reasoning` and `reasoning_format`")


def _format_with_tools(ask: Ask) -> Iterator[Violation]:
    if ask.items("tools") and ask.body.get("response_format"):
        yield Violation("json mode cannot be combined with tool/function calling")


def _unheld(ask: Ask) -> Iterator[Violation]:
    given = cast("Json", ask.body.get("response_format") or {})
    strict = cast("Json", given.get("json_schema") or {}).get("strict")
    schemas = ("openai/gpt-oss-", *(("moonshotai/kimi-k2", "meta-llama/llama-4") if not strict else ()))
    if given.get("type") == "json_schema" and not ask.model.startswith(schemas):
        yield Violation("This model does not support response format `json_schema`.")


_OUTPUTS = "https://console.groq.com/docs/structured-outputs"

RULES = (
    Rule(
        "a field of a message that it does not know",
        "seen",
        "https://github.com/janhq/jan/issues/8136",
        _fields,
    ),
    Rule("a field that it does not know", "documented", "https://console.groq.com/docs/openai", _parameters),
    Rule("more than one choice", "documented", "https://console.groq.com/docs/openai", _n),
    Rule(
        "reasoning to a model without",
        "seen",
        "https://github.com/tensorzero/tensorzero/pull/6353",
        _reasoning_of_others,
    ),
    Rule("include_reasoning beside reasoning_format", "documented", _REASONING, _formats),
    Rule(
        "a response_format beside tools",
        "seen",
        "https://github.com/vercel/ai/pull/16540",
        _format_with_tools,
    ),
    Rule("a schema for a model that is not held to it", "documented", _OUTPUTS, _unheld),
    Rule("a strict schema outside the subset", "documented", _OUTPUTS, strict_schema(outside_openai)),
    Rule("more than 4 stop sequences", "documented", _API, list_at_most("stop", 4)),
    Rule("more than 128 tools", "documented", _API, list_at_most("tools", 128)),
    Rule("a name outside [a-zA-Z0-9_-]{1,64}", "documented", _API, names),
    Rule("a result that is no text", "inferred", _API, results_are_text),
    Rule("a call without its result behind it", "inferred", _API, results_follow_calls),
    Rule("a result without its call before it", "inferred", _API, results_have_calls),
)


def answer(said: Said, ask: Ask) -> list[bytes]:
    """Reasoning comes as `reasoning`, each call whole."""
    thought = [{"reasoning": piece} for piece in said.reasoning if reasons(ask.model)]
    return chat_answers.stream(
        *thought, *chat_answers.texts(said), *chat_answers.whole_calls(said), finish=chat_answers.finish(said)
    )
