"""A model that says what its script says: for tests, demos and the quickstart, without a provider."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec

from atto.models.base import (
    Chunk,
    FinishChunk,
    ModelRequest,
    PartDone,
    ReasoningChunk,
    TextChunk,
    ToolCallChunk,
)
from atto.protocol.errors import ModelError
from atto.protocol.messages import Message, Origin, ReasoningPart, TextPart, ToolCallPart

REQUESTS_KEPT = 1000
"""How many of its requests a `ScriptedModel` remembers, the newest ones: each holds a whole history."""

_WORDS = re.compile(r"\s*\S+|\s+\Z")


class Fail(msgspec.Struct, frozen=True):
    """A cue: the stream breaks here with `error`."""

    error: Exception


class Stall(msgspec.Struct, frozen=True):
    """A cue: the stream says nothing more until `event` is set; without one, until it is cancelled or closed.

    `reached` is set when the stream has come to this point, so that a test can wait for that.
    """

    event: asyncio.Event | None = None
    reached: asyncio.Event | None = None


class Pause(msgspec.Struct, frozen=True):
    """A cue: simulated latency, for demos that should look like a model at work. Tests use `Stall`."""

    seconds: float


Item: TypeAlias = Chunk | ToolCallPart | Fail | Stall | Pause
"""What a list of chunks may hold: chunks, whole calls (`call(...)`) and cues."""

Answer: TypeAlias = (
    "str | Message | ToolCallPart | Sequence[Item] | Exception | Callable[[ModelRequest], Answer]"
)
"""One model call's answer.

- a string: streamed word by word, then `FinishChunk("stop")`
- `call("weather", city="Rome")`: a tool call; several at once, or with text: a `Message` that holds them
- a `Message`: its parts in order, `native` included
- a list of chunks: exactly these; without a `FinishChunk` the stream is cut
- an exception: raised before the first chunk
- a function of the request: any of the above, decided when the call is made
"""


def call(name: str, /, **arguments: Any) -> ToolCallPart:
    """A tool call for a script. Its id is made up anew each time that the model makes it."""
    return ToolCallPart("", name, arguments)


class ScriptedModel:
    """Gives the answers of its script, one to each call, in the order in which the calls begin.

    Any number of runs may call it at once. A call beyond the script's end raises `ModelError`, unless
    `repeat`: then the script starts over. `requests` holds the last thousand requests at least; `calls`
    counts all of them, `active` those that are being answered now (a cancelled or closed one is not).
    """

    def __init__(self, *script: Answer, origin: Origin | None = None, repeat: bool = False) -> None:
        self._script = script
        self._repeat = repeat
        self._origin = origin or Origin("scripted", "scripted")
        self.requests: list[ModelRequest] = []
        self.calls = 0
        self.active = 0

    @classmethod
    def of(
        cls, function: Callable[[ModelRequest], Answer], *, origin: Origin | None = None
    ) -> "ScriptedModel":
        """A model that answers every call with what `function` makes of its request."""
        return cls(function, origin=origin, repeat=True)

    def __repr__(self) -> str:
        return f"ScriptedModel({len(self._script)} answers, {self.calls} calls)"

    @property
    def origin(self) -> Origin:
        """As given; else provider and model are `scripted`."""
        return self._origin

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Chunk, None]:
        """Plays the next answer of the script."""
        answer = self._next(request)
        self.active += 1
        try:
            # a provider never answers within the tick of the request, and a loop may rely on that
            await asyncio.sleep(0)
            for item in _items(answer, request):
                if isinstance(item, Fail | Stall | Pause):
                    await _act(item)
                else:
                    yield item
        finally:
            self.active -= 1

    def _next(self, request: ModelRequest) -> Answer:
        turn = self.calls
        self.calls += 1
        self.requests.append(request)
        if len(self.requests) >= 2 * REQUESTS_KEPT:
            del self.requests[:-REQUESTS_KEPT]
        if not self._script or (turn >= len(self._script) and not self._repeat):
            raise ModelError(
                f"the script has {len(self._script)} answers and call {turn + 1} came: "
                "add an answer, or start over with repeat=True"
            )
        return self._script[turn % len(self._script)]


async def _act(cue: Fail | Stall | Pause) -> None:
    match cue:
        case Fail(error):
            raise error
        case Pause(seconds):
            await asyncio.sleep(seconds)
        case Stall(event, reached):
            if reached is not None:
                reached.set()
            await (event or asyncio.Event()).wait()


def _items(answer: Answer, request: ModelRequest) -> Iterator[Chunk | Fail | Stall | Pause]:
    match answer:
        case str():
            yield from _message(Message.assistant(answer))
        case Message():
            yield from _message(answer)
        case ToolCallPart():
            yield from _message(Message("assistant", (answer,)))
        case Exception():
            yield Fail(answer)
        case Sequence():
            yield from _sequence(answer)
        case _:
            yield from _items(answer(request), request)


def _sequence(items: Sequence[Item]) -> Iterator[Chunk | Fail | Stall | Pause]:
    slot = max((item.slot for item in items if isinstance(item, ToolCallChunk)), default=-1)
    for item in items:
        if isinstance(item, ToolCallPart):
            slot += 1
            yield from _call(item, slot)
        else:
            yield item


def _message(message: Message) -> Iterator[Chunk]:
    for slot, part in enumerate(message.content):
        match part:
            case TextPart(text=text):
                yield from (TextChunk(word) for word in _WORDS.findall(text) or [""])
                yield PartDone(part.native)
            case ReasoningPart(text=text):
                yield from (ReasoningChunk(word) for word in _WORDS.findall(text) or [""])
                yield PartDone(part.native)
            case ToolCallPart():
                yield from _call(part, slot)
            case _:
                raise ModelError(f"a scripted message cannot hold a {type(part).__name__}")
    yield FinishChunk("tool_calls" if message.tool_calls else "stop")


def _call(part: ToolCallPart, slot: int) -> Iterator[Chunk]:
    text = msgspec.json.encode(part.arguments).decode() if part.malformed is None else part.malformed
    yield ToolCallChunk(slot, part.id, part.name, text)
    yield PartDone(part.native, slot)
