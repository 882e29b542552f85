"""Which turn this task is about, for log lines."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_turn: ContextVar[dict[str, Any] | None] = ContextVar("atto_turn", default=None)


@contextmanager
def turn_context(**fields: Any) -> Generator[None]:
    """Log lines of this task, and of those that it starts, carry `fields` too."""
    token = _turn.set({**(_turn.get() or {}), **fields})
    try:
        yield
    finally:
        _turn.reset(token)


def current_turn() -> dict[str, Any]:
    """The fields of the turn that the calling task is about; empty outside of turns."""
    return dict(_turn.get() or {})
