"""How a provider says what the contract of models is about: to be written once for each API."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from atto.models.base import Model
from atto.protocol.messages import Usage


@dataclass(frozen=True)
class SaidCall:
    """A tool call in an answer: its arguments are pieces of JSON text, one event each where the API can."""

    id: str
    name: str
    arguments: Sequence[str] = ("{}",)


@dataclass(frozen=True)
class Said:
    """An answer: reasoning, then text, then calls. Each piece is an event of its own.

    `finish`: `stop`, `tool_calls`, `length` or `content_filter`.
    """

    text: Sequence[str] = ()
    reasoning: Sequence[str] = ()
    calls: Sequence[SaidCall] = ()
    finish: str = "stop"


class Refusal(NamedTuple):
    """A reply other than a success: its headers, and its body as JSON. The suite adds `Retry-After`."""

    headers: dict[str, str]
    body: Any


class Opaque(NamedTuple):
    """An answer with parts that the provider must see again: its events, and those parts in order."""

    events: list[bytes]
    natives: list[Any]


@dataclass(frozen=True)
class ReadCall:
    """A tool call that the provider is reminded of. `result`: the text it is given for it; None: nothing."""

    name: str
    arguments: dict[str, Any]
    result: str | None = None


@dataclass(frozen=True)
class ReadTurn:
    """What one side said. A turn that only holds tool results is none: they stand with their calls."""

    role: Literal["user", "assistant"]
    text: str = ""
    calls: tuple[ReadCall, ...] = ()


@dataclass(frozen=True)
class Reading:
    """A request as its provider understands it. `tools`: their names."""

    turns: list[ReadTurn] = field(default_factory=list[ReadTurn])
    instruction: str = ""
    tools: tuple[str, ...] = ()


class Dialect(Protocol):
    """One API.

    `usage`: what every answer of `answer` and `opaque` reports, in as many fields as the API counts.
    `trailing`: how many of the last events an answer can do without; without one more it is cut.
    `noise`: what may stand between any two events and means nothing: comments, pings, unknown events.
    """

    usage: Usage
    trailing: int
    noise: bytes

    def make_model(self, base_url: str, *, api_key: str, account: str = "") -> Model:
        """The model under test. `base_url`: `http://127.0.0.1:PORT`, without path or version."""
        ...

    def answer(self, said: Said) -> list[bytes]:
        """The answer's events, in order, as bytes of the stream; text beyond ASCII as it is, not escaped."""
        ...

    def opaque(self) -> Opaque | None:
        """An answer whose parts go back verbatim. None: the API has no such thing."""
        ...

    def error_in_stream(self, message: str) -> bytes:
        """The event by which a stream that began well says that the provider is overloaded."""
        ...

    def refusal(self, status: int, message: str) -> Refusal:
        """The reply with an HTTP status of 400 or more."""
        ...

    def reading(self, body: dict[str, Any]) -> Reading:
        """What the body of a request says."""
        ...
