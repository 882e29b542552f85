"""Rules that the APIs in the manner of Chat Completions share, each in its own measure."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, cast

from atto.testing.providers.rule import Ask, Json, Violation

Check = Callable[[Ask], Iterator[Violation]]

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")


def calls_of(message: Json) -> list[Json]:
    """The tool calls of a message."""
    return cast("list[Json]", message.get("tool_calls") or [])


def calls(ask: Ask) -> Iterator[tuple[str, Json]]:
    """All tool calls, each with its path."""
    for at, message in enumerate(ask.items("messages")):
        for number, call in enumerate(calls_of(message)):
            yield f"messages[{at}].tool_calls[{number}]", call


def too_long(where: str, value: object, most: int) -> Iterator[Violation]:
    """OpenAI's words for a string that is too long."""
    if isinstance(value, str) and len(value) > most:
        yield Violation(
            f"Invalid '{where}': string too long. Expected a string with maximum length {most}, but got a "
            f"string with length {len(value)} instead.",
            where,
            "string_above_max_length",
        )


def field_at_most(name: str, most: int) -> Check:
    """A field of the body that is no longer than `most` characters."""
    return lambda ask: too_long(name, ask.body.get(name), most)


def list_at_most(name: str, most: int) -> Check:
    """A list of the body with no more than `most` entries."""

    def check(ask: Ask) -> Iterator[Violation]:
        if len(ask.items(name)) > most:
            yield Violation(
                f"Invalid '{name}': array too long. Expected an array with maximum length {most}, but got an "
                f"array with length {len(ask.items(name))} instead.",
                name,
                "array_above_max_length",
            )

    return check


def list_not_empty(name: str) -> Check:
    """A list of the body that, if it is there, is not empty."""

    def check(ask: Ask) -> Iterator[Violation]:
        if ask.body.get(name) == []:
            yield Violation(
                f"Invalid '{name}': empty array. Expected an array with minimum length 1, but got an empty "
                "array instead.",
                name,
                "empty_array",
            )

    return check


def ids_at_most(most: int) -> Check:
    """Ids of calls that are no longer than `most` characters."""

    def check(ask: Ask) -> Iterator[Violation]:
        for where, call in calls(ask):
            yield from too_long(f"{where}.id", call.get("id"), most)

    return check


def names(ask: Ask) -> Iterator[Violation]:
    """Names of tools and of calls in the alphabet."""
    declared = [(f"tools[{at}]", tool) for at, tool in enumerate(ask.items("tools"))]
    for where, named in [*declared, *calls(ask)]:
        name = cast("Json", named.get("function") or {}).get("name", "")
        if not NAME.fullmatch(str(name)):
            yield Violation(
                f"Invalid '{where}.function.name': string does not match pattern. Expected a string that "
                "matches the pattern '^[a-zA-Z0-9_-]+$'.",
                f"{where}.function.name",
                "invalid_value",
            )


def results_follow_calls(ask: Ask) -> Iterator[Violation]:
    """Behind a message with calls stand their results, all of them, and nothing else before these."""
    messages = ask.items("messages")
    for at, message in enumerate(messages):
        wanted = [call.get("id") for call in calls_of(message)]
        found = _results_behind(messages, at)
        if missing := [str(call_id) for call_id in wanted if call_id not in found]:
            yield Violation(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. The following tool_call_ids did not have response messages: "
                f"{', '.join(missing)}",
                f"messages.[{at + 1}].role",
            )


def results_have_calls(ask: Ask) -> Iterator[Violation]:
    """A result stands behind the message with its call."""
    wanted: set[Any] = set()
    for at, message in enumerate(ask.items("messages")):
        if message.get("role") != "tool":
            wanted = {call.get("id") for call in calls_of(message)}
        elif message.get("tool_call_id") not in wanted:
            yield Violation(
                "Invalid parameter: messages with role 'tool' must be a response to a preceeding message "
                "with 'tool_calls'.",
                f"messages.[{at}].role",
            )


def results_once(ask: Ask) -> Iterator[Violation]:
    """Calls of one message have ids of their own, and one result each."""
    for at, message in enumerate(ask.items("messages")):
        told = [call.get("id") for call in calls_of(message)]
        found = _results_behind(ask.items("messages"), at)
        for call_id in [*told, *found]:
            if told.count(call_id) > 1 or found.count(call_id) > 1:
                yield Violation(
                    f"Duplicate value for 'tool_call_id' of '{call_id}' in message[{at}]",
                    f"messages.[{at}].tool_calls",
                )


def _results_behind(messages: list[Json], at: int) -> list[Any]:
    found: list[Any] = []
    for message in messages[at + 1 :]:
        if message.get("role") != "tool":
            break
        found.append(message.get("tool_call_id"))
    return found


def arguments_are_json(ask: Ask) -> Iterator[Violation]:
    """Arguments are the text of a JSON object."""
    for where, call in calls(ask):
        arguments = cast("Json", call.get("function") or {}).get("arguments")
        if not isinstance(arguments, str) or not is_object(arguments):
            yield Violation(
                f"Invalid '{where}.function.arguments': expected a JSON object.",
                f"{where}.function.arguments",
            )


def is_object(text: str) -> bool:
    """Whether `text` is a JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def parts(ask: Ask) -> Iterator[tuple[str, Json]]:
    """The parts of contents that are lists, each with its path."""
    for at, message in enumerate(ask.items("messages")):
        content = message.get("content")
        for number, part in enumerate(cast("list[Json]", content) if isinstance(content, list) else ()):
            yield f"messages[{at}].content[{number}]", part


def images_of(types: tuple[str, ...]) -> Check:
    """Inline images are of these types."""

    def check(ask: Ask) -> Iterator[Violation]:
        for where, part in parts(ask):
            url = str(cast("Json", part.get("image_url") or {}).get("url", ""))
            if url.startswith("data:") and url[5:].partition(";")[0] not in types:
                yield Violation(
                    "You uploaded an unsupported image. Please make sure your image has of one the following "
                    f"formats: {[name.partition('/')[2] for name in types]}.",
                    where,
                    "invalid_image_format",
                )

    return check


def results_are_text(ask: Ask) -> Iterator[Violation]:
    """A result is a string, or a list of texts."""
    for at, message in enumerate(ask.items("messages")):
        content = message.get("content")
        listed = cast("list[Json]", content) if isinstance(content, list) else []
        is_text = isinstance(content, str) or all(part.get("type") == "text" for part in listed)
        if message.get("role") == "tool" and not (is_text and content is not None):
            yield Violation(
                f"Invalid 'messages[{at}]': tool messages may only hold text.", f"messages.[{at}].content"
            )


def answers_are_not_empty(message: str, *, takes_empty_text: bool) -> Check:
    """An assistant's message has content or calls."""

    def check(ask: Ask) -> Iterator[Violation]:
        for at, said in enumerate(ask.items("messages")):
            if said.get("role") != "assistant" or calls_of(said):
                continue
            content = said.get("content")
            if content is None or (not content and not takes_empty_text):
                yield Violation(message.replace("{at}", str(at)), f"messages.[{at}].content")

    return check


def strict_schema(outside: Callable[[Json], Iterator[str]]) -> Callable[[Ask], Iterator[Violation]]:
    """A strict `response_format` whose schema is outside of a subset."""

    def check(ask: Ask) -> Iterator[Violation]:
        given = cast("Json", ask.body.get("response_format") or {})
        schema = cast("Json", given.get("json_schema") or {})
        if schema.get("strict"):
            for fault in outside(cast("Json", schema.get("schema") or {})):
                yield Violation(
                    f"Invalid schema for response_format '{schema.get('name')}': {fault}", "response_format"
                )

    return check


def json_is_asked_for(message: str) -> Callable[[Ask], Iterator[Violation]]:
    """JSON mode without the word in the prompt."""

    def check(ask: Ask) -> Iterator[Violation]:
        given = cast("Json", ask.body.get("response_format") or {})
        if given.get("type") == "json_object" and "json" not in str(ask.items("messages")).lower():
            yield Violation(message, "messages")

    return check
