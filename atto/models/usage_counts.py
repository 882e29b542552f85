"""Tokens as servers that speak OpenAI's APIs count them, each under names of its own."""

import math
from collections.abc import Iterable
from typing import Any, cast

from atto.protocol.messages import Usage

_INPUT = ("prompt_tokens", "input_tokens")
_OUTPUT = ("completion_tokens", "output_tokens")
_INPUT_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_OUTPUT_DETAILS = ("completion_tokens_details", "output_tokens_details")
_READ = (
    "cached_tokens",  # OpenAI (in details); Moonshot
    "prompt_cache_hit_tokens",  # DeepSeek
    "num_cached_tokens",  # Mistral
    "cache_read_input_tokens",  # Anthropic's word, passed on by gateways
    "cache_read_tokens",
    "cached_prompt_tokens",
)
_WRITTEN = (
    "cache_write_tokens",
    "cache_creation_input_tokens",  # Anthropic's word
    "cache_creation_tokens",
    "cached_creation_tokens",
)
_REASONING = ("reasoning_tokens", "thinking_tokens")


def usage_of(counts: Any) -> Usage | None:
    """The usage in a server's `usage` object. None where there is none, or nothing in it counts anything, as
    in the zeros that some servers send ahead.
    """
    if not isinstance(counts, dict):
        return None
    fields = cast("dict[str, Any]", counts)
    inputs = [fields, *_objects(fields, _INPUT_DETAILS)]
    outputs = [fields, *_objects(fields, _OUTPUT_DETAILS)]
    usage = Usage(
        input_tokens=_first([fields], _INPUT),
        output_tokens=_first([fields], _OUTPUT),
        cache_read_tokens=_first(inputs, _READ),
        cache_write_tokens=_first(inputs, _WRITTEN),
        reasoning_tokens=_first(outputs, _REASONING),
    )
    return None if usage == Usage() else usage


def _objects(fields: dict[str, Any], names: Iterable[str]) -> list[dict[str, Any]]:
    found = (fields.get(name) for name in names)
    return [cast("dict[str, Any]", value) for value in found if isinstance(value, dict)]


def _first(places: Iterable[dict[str, Any]], names: Iterable[str]) -> int:
    """The first count that is not 0: a server may name one twice, once of them empty."""
    known = tuple(names)
    return next((n for place in places for name in known if (n := _count(place.get(name)))), 0)


def _count(value: Any) -> int:
    """A number of tokens; some servers write it as text or with a fraction. Nonsense counts nothing."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return int(number) if math.isfinite(number) and number > 0 else 0
