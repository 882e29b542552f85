"""Which turn this task is about, for log lines."""

from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any, Self

from atto.aio.user_code import Kind, UserCode

_turn: ContextVar[dict[str, Any] | None] = ContextVar("atto_turn", default=None)


class TurnContext:
    """`with TurnContext(session=…)`: log lines of this task, and of those that it starts, carry these."""

    __slots__ = ("_fields", "_token")

    def __init__(self, **fields: Any) -> None:
        self._fields = fields
        self._token: Token[dict[str, Any] | None] | None = None

    def __enter__(self) -> Self:
        outer = _turn.get()
        self._token = _turn.set(self._fields if outer is None else {**outer, **self._fields})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _turn.reset(self._token)


def current_turn() -> dict[str, Any]:
    """The fields of the turn that the calling task is about; empty outside of turns."""
    return dict(_turn.get() or {})


def user_code(kind: Kind, name: str) -> UserCode:
    """To enter users' code on behalf of the turn that the calling task is about."""
    turn = _turn.get()
    if turn is None:
        return UserCode(kind, name)
    return UserCode(kind, name, turn.get("session", ""), turn.get("run", ""))
