"""Python values as JSON: what tools return, and what they keep in the state."""

import math
from collections.abc import Iterable
from typing import Any, cast

import msgspec

from atto.agents import pydantic_types


def encode(value: Any) -> bytes:
    """`value` as JSON: all that msgspec encodes, and pydantic models, at any depth.

    Raises whatever its parts raise when they cannot be encoded: TypeError, RecursionError …; and ValueError
    for NaN and infinities.
    """
    data = msgspec.json.encode(value, enc_hook=pydantic_types.dump)
    if b"null" in data and _has_no_number(msgspec.to_builtins(value, enc_hook=pydantic_types.dump)):
        raise ValueError("it holds NaN or an infinity, which JSON does not have: give None, or text")
    return data


def plain(value: Any) -> Any:
    """`value` as it comes back from JSON: new dicts, lists, strings, numbers, booleans and None only."""
    return msgspec.json.decode(encode(value))


def _has_no_number(value: Any) -> bool:
    """Whether a float in `value` (of dicts, lists and plain values) is none that JSON has."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, float) and not math.isfinite(each):
            return True
        if isinstance(each, dict):
            waiting += cast("dict[Any, Any]", each).values()
        elif isinstance(each, list | tuple):
            waiting += cast("Iterable[Any]", each)
    return False
