"""Chunks of a model's stream, folded into the message that they make."""

import secrets
from dataclasses import dataclass, field
from typing import Any

import msgspec

from atto.models.base import (
    Chunk,
    FinishChunk,
    PartDone,
    ReasoningChunk,
    TextChunk,
    ToolCallChunk,
    UsageChunk,
)
from atto.models.history import short_id
from atto.protocol.codec import check_depth
from atto.protocol.errors import InvalidTurn, ModelError
from atto.protocol.messages import AnyPart, Message, Origin, ReasoningPart, TextPart, ToolCallPart, Usage

# Arguments travel inside an event of a batch, and lie inside a message of a snapshot: what is nested around
# them there counts against the same limit, or a listener could not read what the model said.
_AROUND = 10

MAX_CALLS = 128
"""Tool calls in one message. A model that makes more is taken to be broken: the stream is closed."""
MAX_ARGUMENTS = 512 << 10
"""Bytes of arguments in one message, all its calls together. Beyond, they are dropped, and the calls that
they belong to are `malformed`: the model is told.
"""
_ENDLESS = 16 * MAX_ARGUMENTS
_SHOWN = 200  # characters of arguments that were cut
_WHOLE = frozenset({"stop", "tool_calls"})
_EMPTY = frozenset({"", "{}"})

_objects = msgspec.json.Decoder(dict[str, Any])


class Assembled(msgspec.Struct, frozen=True):
    """A model's whole answer. `finish`: why it ended, in the words of `FinishChunk`."""

    message: Message
    usage: Usage
    finish: str


@dataclass(slots=True)
class _Prose:
    kind: type[TextPart | ReasoningPart]
    pieces: list[str] = field(default_factory=list[str])
    native: Any = None

    def build(self) -> AnyPart | None:
        text = "".join(self.pieces)
        return self.kind(text, native=self.native) if text or self.native is not None else None


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list[str])
    native: Any = None
    is_cut: bool = False

    def build(self, taken: set[str], finish: str) -> ToolCallPart:
        text = "".join(self.pieces)
        if self.is_cut:
            text = f"(more than {MAX_ARGUMENTS:,} bytes, so they were cut) {text[:_SHOWN]}"
        arguments = parse_arguments(text) if self.name and not _is_cut(text, finish) else None
        call_id = _unique(self.id, taken)
        if arguments is None:
            return ToolCallPart(call_id, self.name, malformed=_encodable(text), native=self.native)
        return ToolCallPart(call_id, self.name, arguments, native=self.native)


class Assembler:
    """Folds one stream: `add` each chunk, then `finish`.

    The text of the message equals the text chunks, joined. Parts stand in the order in which they began.
    Every tool call has an id that is unique within the message, made up where the provider sent none or the
    same twice. A call whose arguments are no JSON object or too long, or that has no name, is `malformed`,
    and never runs; likewise a call without arguments in an answer that did not end by itself (`length` and
    the like), since they may have been about to come, and any call of an answer that was filtered. The cost
    is linear in what was streamed. Raises `ModelError` for calls or arguments without end.
    """

    def __init__(self, origin: Origin | None = None) -> None:
        self._origin = origin
        self._parts: list[_Prose | _Call] = []
        self._prose: _Prose | None = None
        self._calls: dict[int, _Call] = {}
        self._calls_made = 0
        self._arguments = 0
        self._usage = Usage()
        self._finish: str | None = None

    def add(self, chunk: Chunk) -> None:
        """Takes the next chunk of the stream."""
        if isinstance(chunk, TextChunk):  # nearly all are; a pattern costs several times as much
            self._write(TextPart, chunk.text)
            return
        match chunk:
            case ReasoningChunk(text):
                self._write(ReasoningPart, text)
            case ToolCallChunk():
                self._extend(chunk)
            case PartDone():
                self._close(chunk)
            case UsageChunk(usage):
                self._usage = usage
            case FinishChunk(reason):
                self._finish = reason if self._finish is None else self._finish

    def finish(self) -> Assembled:
        """The whole answer. Raises `ModelError` (transient) if no `FinishChunk` came: the stream was cut."""
        if self._finish is None:
            raise ModelError("the stream ended without its terminal marker", transient=True)
        taken: set[str] = set()
        finish = self._finish
        built = [
            part.build(taken, finish) if isinstance(part, _Call) else part.build() for part in self._parts
        ]
        content = tuple(part for part in built if part is not None)
        return Assembled(Message("assistant", content, self._origin), self._usage, self._finish)

    def _write(self, kind: type[TextPart | ReasoningPart], text: str) -> None:
        prose = self._prose
        if prose is None or prose.kind is not kind:
            prose = self._open(kind)
        prose.pieces.append(text)

    def _open(self, kind: type[TextPart | ReasoningPart]) -> _Prose:
        self._prose = prose = _Prose(kind)
        self._parts.append(prose)
        return prose

    def _extend(self, chunk: ToolCallChunk) -> None:
        self._prose = None
        call = self._call(chunk.slot)
        call.id = call.id or chunk.id
        call.name = call.name or chunk.name
        if chunk.arguments:
            self._arguments += _size(chunk.arguments)
            if self._arguments > _ENDLESS:
                raise ModelError(f"the model sent more than {_ENDLESS:,} bytes of arguments", transient=True)
            if self._arguments > MAX_ARGUMENTS:
                call.is_cut = True
            else:
                call.pieces.append(chunk.arguments)

    def _close(self, done: PartDone) -> None:
        if done.slot is not None:
            self._call(done.slot).native = done.native
            del self._calls[done.slot]
            return
        prose = self._prose or self._open(ReasoningPart)
        prose.native = done.native
        self._prose = None

    def _call(self, slot: int) -> _Call:
        if slot not in self._calls:
            self._calls_made += 1
            if self._calls_made > MAX_CALLS:
                raise ModelError(f"the model asks for more than {MAX_CALLS} tools at once", transient=True)
            self._calls[slot] = _Call()
            self._parts.append(self._calls[slot])
        return self._calls[slot]


def parse_arguments(text: str) -> dict[str, Any] | None:
    """A tool call's arguments; no text at all is an empty object. None: no JSON object, or too deep."""
    if not text.strip():
        return {}
    try:
        data = text.encode()
        check_depth(data, around=_AROUND)
        return _objects.decode(data)
    except (InvalidTurn, msgspec.MsgspecError, UnicodeEncodeError):
        return None


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def _is_cut(arguments: str, finish: str) -> bool:
    """Whether a call may lack arguments that the model was going to give. Where the object is closed nothing
    can be missing, but an empty one is what servers make of a call that broke off before its first argument.
    """
    if finish in _WHOLE:
        return False
    return finish == "content_filter" or "".join(arguments.split()) in _EMPTY


def _unique(call_id: str, taken: set[str]) -> str:
    while not call_id or call_id in taken:
        call_id = short_id(secrets.token_hex(16))
    taken.add(call_id)
    return call_id


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
