"""Python values as JSON: what tools return, and what they keep in the state."""

from typing import Any

import msgspec

from atto.agents import pydantic_types


def encode(value: Any) -> bytes:
    """`value` as JSON: all that msgspec encodes, and pydantic models, at any depth.

    Raises whatever its parts raise when they cannot be encoded: TypeError, ValueError, RecursionError ...
    """
    return msgspec.json.encode(value, enc_hook=pydantic_types.dump)


def plain(value: Any) -> Any:
    """`value` as it comes back from JSON: new dicts, lists, strings, numbers, booleans and None only."""
    return msgspec.json.decode(encode(value))
