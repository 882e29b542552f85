"""What DeepSeek refuses."""

from collections.abc import Iterator
from typing import cast

from atto.testing.model_dialect import Said
from atto.testing.providers import chat_answers
from atto.testing.providers.chat_rules import (
    answers_are_not_empty,
    calls_of,
    json_is_asked_for,
    list_at_most,
    names,
    parts,
    results_follow_calls,
    results_have_calls,
)
from atto.testing.providers.rule import Ask, Json, Rule, Violation

_API = "https://api-docs.deepseek.com/api/create-chat-completion"
_THINKING = "https://api-docs.deepseek.com/guides/thinking_mode"


def error_body(violation: Violation) -> Json:
    """An error as DeepSeek words it."""
    return {
        "error": {
            "message": violation.message,
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_request_error",
        }
    }


def thinks(ask: Ask) -> bool:
    """Thinking is on unless it is turned off, or the model is the one without."""
    thinking = cast("Json", ask.body.get("thinking") or {}).get("type")
    return thinking != "disabled" and ask.model != "deepseek-chat"


def _reasoning_missing(ask: Ask) -> Iterator[Violation]:
    for message in ask.items("messages"):
        if thinks(ask) and calls_of(message) and not message.get("reasoning_content"):
            yield Violation("The `reasoning_content` in the thinking mode must be passed back to the API.")


def _reasoning_of_answers(ask: Ask) -> Iterator[Violation]:
    for message in ask.items("messages"):
        if thinks(ask) and message.get("role") == "assistant" and not message.get("reasoning_content"):
            yield Violation("The `reasoning_content` in the thinking mode must be passed back to the API.")


def _reasoning_elsewhere(ask: Ask) -> Iterator[Violation]:
    for at, message in enumerate(ask.items("messages")):
        if message.get("role") != "assistant" and "reasoning_content" in message:
            yield Violation(
                f"Failed to deserialize the JSON body into the target type: messages[{at}]: unexpected field "
                "`reasoning_content`",
                status=422,
            )


def _images(ask: Ask) -> Iterator[Violation]:
    for where, part in parts(ask):
        if part.get("type") != "text":
            yield Violation(
                "Failed to deserialize the JSON body into the target type: "
                f"{where.partition('.')[0]}: unknown variant `{part.get('type')}`, expected `text`"
            )


def _tool_choice(ask: Ask) -> Iterator[Violation]:
    if thinks(ask) and ask.body.get("tool_choice") not in {None, "auto", "none"}:
        yield Violation("Thinking mode does not support this tool_choice")


def _schema(ask: Ask) -> Iterator[Violation]:
    if cast("Json", ask.body.get("response_format") or {}).get("type") == "json_schema":
        yield Violation("This response_format type is unavailable now")


_EMPTY = "Invalid assistant message: content or tool_calls must be set"
_ORDER = "https://api-docs.deepseek.com/guides/function_calling"

RULES = (
    Rule("a call without the reasoning that led to it", "documented", _THINKING, _reasoning_missing),
    Rule(
        "an answer without its reasoning",
        "seen",
        "https://github.com/Hmbown/Codewhale/releases/tag/v0.5.0",
        _reasoning_of_answers,
    ),
    Rule("reasoning of others than the assistant", "inferred", _API, _reasoning_elsewhere),
    Rule("content that is no text", "seen", "https://github.com/1jehuang/jcode/issues/310", _images),
    Rule(
        "a forced tool choice of a model that thinks",
        "seen",
        "https://github.com/can1357/oh-my-pi/issues/7315",
        _tool_choice,
    ),
    Rule("a response_format of json_schema", "documented", _API, _schema),
    Rule(
        "JSON without the word in the prompt",
        "documented",
        "https://api-docs.deepseek.com/guides/json_mode",
        json_is_asked_for("Prompt must contain the word 'json' in some form to use 'response_format'"),
    ),
    Rule(
        "an answer without content or calls",
        "seen",
        "https://github.com/OnesoftQwQ/opencode-go-copilot/issues/24",
        answers_are_not_empty(_EMPTY, takes_empty_text=False),
    ),
    Rule("more than 16 stop sequences", "documented", _API, list_at_most("stop", 16)),
    Rule("more than 128 tools", "documented", _API, list_at_most("tools", 128)),
    Rule("a name outside [a-zA-Z0-9_-]{1,64}", "documented", _API, names),
    Rule("a call without its result behind it", "documented", _ORDER, results_follow_calls),
    Rule("a result without its call before it", "documented", _ORDER, results_have_calls),
)


def answer(said: Said, ask: Ask) -> list[bytes]:
    """Reasoning comes as `reasoning_content`, before the text."""
    thought = [{"content": None, "reasoning_content": piece} for piece in said.reasoning if thinks(ask)]
    return chat_answers.stream(
        *thought, *chat_answers.texts(said), *chat_answers.calls(said), finish=chat_answers.finish(said)
    )
