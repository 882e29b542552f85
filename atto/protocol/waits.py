"""Waits: what a suspended run waits for."""

from datetime import datetime
from typing import Any, Literal

from msgspec import Struct


class WaitingCall(Struct, frozen=True, omit_defaults=True, gc=False):
    """The tool call that a wait is about."""

    id: str
    name: str
    arguments: dict[str, Any] = {}


class Wait(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a suspended run waits for.

    Attributes:
        id: Names root, path, key and exact arguments, so that an answer binds what it saw.
        kind: Who answers, and how.
        path: Where in the run it is asked; empty for the run's own agent.
        ask: What people read, up to 4 KB.
        call: The tool call in question.
        schema: The JSON Schema of the answer, up to 16 KB.
        until: When it expires.

    """

    id: str
    kind: Literal["approval", "question", "tool", "timer"]
    path: str = ""
    ask: str = ""
    call: WaitingCall | None = None
    schema: dict[str, Any] | None = None
    until: datetime | None = None
