"""What OpenAI refuses at `/v1/chat/completions`."""

import re
from collections.abc import Iterator
from typing import cast

from atto.testing.model_dialect import Said
from atto.testing.providers import chat_answers
from atto.testing.providers.chat_rules import (
    IMAGES,
    answers_are_not_empty,
    arguments_are_json,
    field_at_most,
    ids_at_most,
    images_of,
    json_is_asked_for,
    list_at_most,
    list_not_empty,
    names,
    results_are_text,
    results_follow_calls,
    results_have_calls,
    results_once,
    too_long,
)
from atto.testing.providers.rule import Ask, Json, Rule, Violation
from atto.testing.providers.schemas import outside_openai

REASONING = re.compile(r"(o\d|gpt-5(?!.*chat))")

_CHAT = "https://platform.openai.com/docs/api-reference/chat/create"
_REASONING = "https://platform.openai.com/docs/guides/reasoning"
_STRICT = "https://platform.openai.com/docs/guides/structured-outputs#supported-schemas"


def error_body(violation: Violation) -> Json:
    """An error as OpenAI words it."""
    return {
        "error": {
            "message": violation.message,
            "type": "invalid_request_error",
            "param": violation.param,
            "code": violation.code,
        }
    }


def reasons(model: str) -> bool:
    """Whether the model is one of those that reason."""
    return REASONING.match(model) is not None


def _max_tokens(ask: Ask) -> Iterator[Violation]:
    if reasons(ask.model) and "max_tokens" in ask.body:
        yield Violation(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
            "'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        )


def _temperature(ask: Ask) -> Iterator[Violation]:
    if reasons(ask.model) and ask.body.get("temperature", 1) != 1:
        yield Violation(
            f"Unsupported value: 'temperature' does not support {ask.body['temperature']} with this model. "
            "Only the default (1) value is supported.",
            "temperature",
            "unsupported_value",
        )


def _stop(ask: Ask) -> Iterator[Violation]:
    if reasons(ask.model) and "stop" in ask.body:
        yield Violation(
            "Unsupported parameter: 'stop' is not supported with this model.", "stop", "unsupported_parameter"
        )


def _strict(ask: Ask) -> Iterator[Violation]:
    for at, tool in enumerate(ask.items("tools")):
        function = cast("Json", tool.get("function") or {})
        if function.get("strict"):
            for fault in outside_openai(cast("Json", function.get("parameters") or {})):
                yield Violation(
                    f"Invalid schema for function '{function.get('name')}': {fault}",
                    f"tools[{at}].function.parameters",
                    "invalid_function_parameters",
                )


def _response_format(ask: Ask) -> Iterator[Violation]:
    given = cast("Json", cast("Json", ask.body.get("response_format") or {}).get("json_schema") or {})
    if given.get("strict"):
        for fault in outside_openai(cast("Json", given.get("schema") or {})):
            yield Violation(
                f"Invalid schema for response_format '{given.get('name')}': {fault}", "response_format"
            )


def _format_name(ask: Ask) -> Iterator[Violation]:
    given = cast("Json", ask.body.get("response_format") or {})
    name = cast("Json", given.get("json_schema") or {}).get("name")
    if given.get("type") == "json_schema" and not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", str(name or "")):
        yield Violation(
            "Invalid 'response_format.json_schema.name': string does not match pattern. Expected a string "
            "that matches the pattern '^[a-zA-Z0-9_-]+$'.",
            "response_format.json_schema.name",
            "invalid_value",
        )


def _descriptions(ask: Ask) -> Iterator[Violation]:
    for at, tool in enumerate(ask.items("tools")):
        described = cast("Json", tool.get("function") or {}).get("description")
        yield from too_long(f"tools[{at}].function.description", described, 1024)


_NULL = "Invalid value for 'content': expected a string, got null."

RULES = (
    Rule("messages is empty", "documented", _CHAT, list_not_empty("messages")),
    Rule(
        "tools is empty",
        "seen",
        "https://github.com/QwenLM/qwen-code/issues/2054",
        list_not_empty("tools"),
    ),
    Rule("more than 128 tools", "documented", _CHAT, list_at_most("tools", 128)),
    Rule(
        "prompt_cache_key of more than 64 characters",
        "seen",
        "https://github.com/earendil-works/pi/issues/4720",
        field_at_most("prompt_cache_key", 64),
    ),
    Rule("more than 4 stop sequences", "documented", _CHAT, list_at_most("stop", 4)),
    Rule("a name outside [a-zA-Z0-9_-]{1,64}", "documented", _CHAT, names),
    Rule(
        "a description of more than 1024 characters",
        "seen",
        "https://github.com/getsentry/sentry-mcp/issues/106",
        _descriptions,
    ),
    Rule(
        "an id of more than 40 characters",
        "seen",
        "https://github.com/vercel/ai/issues/5171",
        ids_at_most(40),
    ),
    Rule(
        "a call without its result behind it",
        "documented",
        "https://platform.openai.com/docs/guides/function-calling",
        results_follow_calls,
    ),
    Rule(
        "a result without its call before it",
        "documented",
        "https://platform.openai.com/docs/guides/function-calling",
        results_have_calls,
    ),
    Rule(
        "an id twice in one message",
        "seen",
        "https://github.com/agno-agi/agno/issues/5116",
        results_once,
    ),
    Rule("arguments that are no JSON object", "inferred", _CHAT, arguments_are_json),
    Rule(
        "an answer without content or calls",
        "documented",
        _CHAT,
        answers_are_not_empty(_NULL, takes_empty_text=True),
    ),
    Rule(
        "an image that is no png, jpeg, gif, webp",
        "documented",
        "https://platform.openai.com/docs/guides/images-vision",
        images_of(IMAGES),
    ),
    Rule("a result that is no text", "documented", _CHAT, results_are_text),
    Rule("max_tokens of a reasoning model", "documented", _CHAT, _max_tokens),
    Rule("temperature of a reasoning model", "documented", _REASONING, _temperature),
    Rule("stop of a reasoning model", "documented", _CHAT, _stop),
    Rule("a strict tool outside the subset", "documented", _STRICT, _strict),
    Rule("a strict response_format outside the subset", "documented", _STRICT, _response_format),
    Rule(
        "JSON without the word in the prompt",
        "documented",
        "https://platform.openai.com/docs/guides/structured-outputs#json-mode",
        json_is_asked_for(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type "
            "'json_object'."
        ),
    ),
    Rule("a response_format without a proper name", "documented", _CHAT, _format_name),
)


def answer(said: Said, ask: Ask) -> list[bytes]:  # noqa: ARG001 - every provider answers by what was asked
    """Text and calls: the API never shows what a model thought."""
    return chat_answers.stream(
        *chat_answers.texts(said), *chat_answers.calls(said), finish=chat_answers.finish(said)
    )
