"""What a model is to atto: a request in, chunks out."""

from collections.abc import AsyncGenerator
from typing import Any, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct

from atto.protocol.messages import Message, Origin, Usage


class ToolSpec(Struct, frozen=True):
    """A tool as a model sees it. `parameters`: a JSON Schema of type object."""

    name: str
    description: str
    parameters: dict[str, Any]


class ModelRequest(Struct, frozen=True, kw_only=True):
    """One model call. `options` go to the provider as they are; `cache_key` names the shared prefix."""

    messages: tuple[Message, ...]
    instruction: str = ""
    tools: tuple[ToolSpec, ...] = ()
    temperature: float | None = None
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    output_schema: dict[str, Any] | None = None
    options: dict[str, Any] = {}
    cache_key: str = ""


class TextChunk(Struct, frozen=True, gc=False):
    """A piece of text. An empty one begins a part that counts only if a `PartDone` with `native` ends it."""

    text: str


class ReasoningChunk(Struct, frozen=True, gc=False):
    """A piece of reasoning."""

    text: str


class ToolCallChunk(Struct, frozen=True, gc=False):
    """A piece of a tool call: `slot` tells the calls of one message apart, `arguments` are pieces of JSON
    text, to be joined. `id` and `name` may come with any of the pieces, whole; the first of each counts.
    """

    slot: int
    id: str = ""
    name: str = ""
    arguments: str = ""


class PartDone(Struct, frozen=True, gc=False):
    """The part that the chunks before built is complete; `native` is the provider's own JSON of it, if it
    must see that again.

    Where no text or reasoning is being built (an opaque or redacted part), `native` makes a reasoning part
    without text. `slot` names the tool call, where the part is one.
    """

    native: Any
    slot: int | None = None


class UsageChunk(Struct, frozen=True, gc=False):
    """Tokens so far; the last one counts."""

    usage: Usage


class FinishChunk(Struct, frozen=True, gc=False):
    """The provider's terminal marker: `stop`, `tool_calls`, `length`, `content_filter`, or its own word.

    A stream that ends without one was cut: that is an error, not an answer.
    """

    reason: str


Chunk: TypeAlias = TextChunk | ReasoningChunk | ToolCallChunk | PartDone | UsageChunk | FinishChunk


@runtime_checkable
class Model(Protocol):
    """A model: anything with an `origin` and a `stream`.

    `stream` is an async generator. It raises `ModelError` for what the provider did, with `transient` set
    where another try may help; it does not retry by itself. Closing the generator (`contextlib.aclosing`) or
    cancelling the task in the middle must close the connection to the provider. Any number of streams may be
    open at once.
    """

    @property
    def origin(self) -> Origin:
        """Provider, model and account: whose native parts this model takes back."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[Chunk, None]:
        """Answers `request`, chunk by chunk, the last one a `FinishChunk`."""
        ...


@runtime_checkable
class Closeable(Protocol):
    """A model that holds connections: who owns the event loop closes it before the loop ends."""

    async def aclose(self) -> None:
        """Lets go of what the running event loop holds. May be called twice; later streams open anew."""
        ...
