"""The stream of the Messages API: payloads in, chunks out. Nothing in it is trusted.

Each content block becomes one part. A block that says nothing beyond its text, or beyond a call's id, name
and input, is sent again from those; any other keeps its JSON: thinking with its signature, what the provider
redacted, citations, the tools that it ran itself.
"""

import json
from typing import Any, cast

import msgspec

from atto.models.anthropic_errors import told_in_stream
from atto.models.base import (
    Chunk,
    FinishChunk,
    PartDone,
    ReasoningChunk,
    TextChunk,
    ToolCallChunk,
    UsageChunk,
)
from atto.models.failures import Failures
from atto.models.surrogates import SurrogateJoiner, mend
from atto.protocol.codec import check_depth
from atto.protocol.errors import InvalidTurn
from atto.protocol.messages import Usage

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",  # there is a call if there is one
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
}
_CONTENT = frozenset({"content_block_start", "content_block_delta"})
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}
_KNOWN_DELTAS = frozenset({*_DELTAS, "signature_delta", "citations_delta"})

_EVENTS = {
    "",
    "error",
    "message",
    "message_start",
    "message_delta",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
}
"""The events that are read. Any other may hold anything under any name."""

_Json = dict[str, Any]


class _Details(msgspec.Struct):
    thinking_tokens: int | None = None


class _Usage(msgspec.Struct):
    """Cumulative: a later one replaces what it names."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    output_tokens_details: _Details | None = None


class _Kind(msgspec.Struct):
    type: str = ""
    delta: Any = None


class _Delta(msgspec.Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    partial_json: str | None = None
    signature: str | None = None
    citation: Any = None
    stop_reason: str | None = None
    container: Any = None


class _Message(msgspec.Struct):
    usage: _Usage | None = None
    container: Any = None


class _Event(msgspec.Struct):
    """Also a whole message, from a server that does not stream: `content`, `usage` and `stop_reason`."""

    type: str = ""
    index: int = 0
    content_block: _Json | None = None
    delta: _Delta | None = None
    message: _Message | None = None
    usage: _Usage | None = None
    content: list[_Json] | None = None
    stop_reason: str | None = None
    container: Any = None
    error: Any = None


_events = msgspec.json.Decoder(_Event, strict=False)


class _Block:
    """A content block that is being said."""

    def __init__(self, index: int, start: _Json, slot: int) -> None:
        self.index = index
        self.slot = slot
        self.json = start
        self.kind = start.get("type")
        self.pieces: list[str] = []
        self.joiner = SurrogateJoiner()

    def begin(self) -> Chunk | None:
        match self.kind:
            case "text":
                return TextChunk(self.join(self.json.get("text")))
            case "thinking":
                return ReasoningChunk(self.join(self.json.get("thinking")))
            case "tool_use":
                call_id, name = _text(self.json.get("id")), _text(self.json.get("name"))
                return ToolCallChunk(self.slot, mend(call_id), mend(name))
            case _:
                return None

    def keep(self, delta: _Json) -> None:
        """Takes a delta of a kind that is not known here: what it says is added to the fields that it names,
        so that the block goes back whole.
        """
        for name, value in delta.items():
            if name == "type":
                continue
            known = self.json.get(name)
            if isinstance(known, str) and isinstance(value, str):
                self.json[name] = known + value
            elif isinstance(known, list) and isinstance(value, list):
                self.json[name] = [*cast("list[Any]", known), *cast("list[Any]", value)]
            elif value is not None:
                self.json[name] = value

    def final(self) -> _Json:
        """The block as the API takes it back."""
        said = "".join(self.pieces)
        if self.kind in {"text", "thinking"}:
            return _encodable({**self.json, str(self.kind): said})
        return _encodable({**self.json, "input": _loads(said)} if said else self.json)

    def say(self, delta: _Delta) -> Chunk | None:
        """Takes a delta of a kind that is known."""
        if delta.type == "signature_delta":
            self.json["signature"] = _text(self.json.get("signature")) + _text(delta.signature)
        elif delta.type == "citations_delta":
            self.json["citations"] = [*(self.json.get("citations") or ()), delta.citation]
        elif delta.type in _DELTAS:
            piece = self.join(getattr(delta, _DELTAS[delta.type]))
            return self._chunk(piece) if piece else None
        return None

    def join(self, text: Any) -> str:
        """What can leave of `text`: no half of a character."""
        piece = self.joiner.join(_text(text))
        self.pieces.append(piece)
        return piece

    def end(self) -> list[Chunk]:
        """What was held back, and the end of the part."""
        rest = self.joiner.end()
        self.pieces.append(rest)
        chunks = [chunk for chunk in (self._chunk(rest) if rest else None,) if chunk is not None]
        said = "".join(self.pieces)
        match self.kind:
            case "text":
                native = {**self.json, "text": said} if _says_more(self.json, {"type", "text"}) else None
                return [*chunks, PartDone(native and _encodable(native))]
            case "thinking":
                return [*chunks, PartDone(_encodable({**self.json, "thinking": said}))]
            case "tool_use":
                return [*chunks, *self._end_call(said)]
            case _:
                return [PartDone(self.final())]

    def _end_call(self, said: str) -> list[Chunk]:
        whole = self.json.get("input")
        chunks: list[Chunk] = []
        if not said and whole:
            chunks.append(ToolCallChunk(self.slot, arguments=mend(json.dumps(whole, ensure_ascii=False))))
        if _says_more(self.json, {"type", "id", "name", "input"}):
            said_again = {"id", "name", "input"}
            native = {name: value for name, value in self.json.items() if name not in said_again}
            chunks.append(PartDone(_encodable(native), self.slot))
        return chunks

    def _chunk(self, piece: str) -> Chunk | None:
        match self.kind:
            case "text":
                return TextChunk(piece)
            case "thinking":
                return ReasoningChunk(piece)
            case "tool_use":
                return ToolCallChunk(self.slot, arguments=piece)
            case _:
                return None


class MessagesReader:
    """Reads one answer: `read` each payload, then `end`.

    `finished`: it was said why it ends, and what it cost; `done`: `message_stop` came as well. `blocks`: the
    content so far, as the API takes it back. `paused`: the provider wants to go on with a further request,
    that ends with this content; `begin_again` before its answer is read.
    """

    ended_speaking = False

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._block: _Block | None = None
        self._calls = False
        self._reason = ""
        self._usage: dict[str, Any] = {}
        self._before = Usage()
        self._slots = 0
        self.blocks: list[_Json] = []
        self.container: str | None = None
        self.resumed = False
        self.done = False

    @property
    def finished(self) -> bool:
        """It was said why the answer ends."""
        return bool(self._reason)

    @property
    def paused(self) -> bool:
        """The turn is not over, and no tool of ours has to answer first."""
        return self._reason == "pause_turn" and not self._calls and bool(self.blocks)

    def begin_again(self) -> list[Chunk]:
        """Before the answer that goes on with this one: the last chunks of this."""
        chunks = self._end_block()
        self._before += _normalised(self._usage)
        self._usage = {}
        self._reason, self.resumed, self.done = "", False, False
        self._slots += len(self.blocks) + 1
        return chunks

    def read(self, payload: bytes) -> list[Chunk]:
        """The chunks in `payload`. Raises `ModelError` for an error event, and for what makes no sense."""
        if self.done:
            return []
        event = self._decode(payload)
        if event.type in _CONTENT and self._reason:
            self.resumed = True
        if event.type == "error" or (event.error and not event.type):
            raise self._failures.in_stream(told_in_stream(event.error))
        match event.type:
            case "content_block_start" if event.content_block is not None:
                return [*self._end_block(), *self._begin(event.index, event.content_block)]
            case "content_block_delta" if event.delta is not None:
                return self._say(event.index, event.delta, payload)
            case "content_block_stop":
                return self._end_block(event.index)
            case "message":
                return self._whole(event)
            case _:
                self._read_frame(event)
                return []

    def end(self) -> list[Chunk]:
        """The last chunks of the answer. Raises `ModelError` if it was cut."""
        if not self._reason:
            raise self._failures.cut()
        chunks = self._end_block()
        usage = self._before + _normalised(self._usage)
        if usage != Usage():
            chunks.append(UsageChunk(usage))
        reason = _REASONS.get(self._reason, self._reason)
        return [*chunks, FinishChunk("tool_calls" if self._calls and reason == "stop" else reason)]

    def _read_frame(self, event: _Event) -> None:
        """What is said of the message as a whole."""
        match event.type:
            case "message_start" if event.message is not None:
                self._count(event.message.usage)
                self._contain(event.message.container)
            case "message_delta":
                self._count(event.usage)
                self._end_message(event.delta)
            case "message_stop":
                self.done = self.finished
            case _:
                pass

    def _decode(self, payload: bytes) -> _Event:
        try:
            check_depth(payload)
            return self._parse(payload)
        except (InvalidTurn, msgspec.ValidationError, ValueError) as error:
            raise self._failures.cut(f"an event of the stream is not valid: {error}") from None

    def _parse(self, payload: bytes) -> _Event:
        try:
            return _events.decode(payload)
        except msgspec.ValidationError:
            if _is_read(msgspec.json.decode(payload, type=_Kind)):
                raise
            return _Event("ping")
        except (msgspec.DecodeError, UnicodeDecodeError):
            # half a surrogate pair is no JSON to msgspec; the joiners put the halves together
            return msgspec.convert(json.loads(payload.decode("utf-8", "replace")), _Event, strict=False)

    def _end_message(self, delta: _Delta | None) -> None:
        if delta is None:
            return
        self._contain(delta.container)
        reason = delta.stop_reason or ""
        if _REASONS.get(self._reason, self._reason) in {"", "stop"} and reason:
            self._reason = reason

    def _contain(self, container: Any) -> None:
        """Where the provider runs code: a request that goes on has to name it."""
        if isinstance(container, dict):
            self.container = _text(cast("_Json", container).get("id")) or self.container

    def _begin(self, index: int, start: _Json) -> list[Chunk]:
        self._block = block = _Block(index, start, self._slots + index)
        self._calls = self._calls or block.kind == "tool_use"
        chunk = block.begin()
        return [] if chunk is None else [chunk]

    def _say(self, index: int, delta: _Delta, payload: bytes) -> list[Chunk]:
        block = self._block
        if block is None or block.index != index:
            raise self._failures.cut(f"a delta is of block {index}, which was not begun, or has ended")
        if delta.type not in _KNOWN_DELTAS:
            block.keep(cast("_Json", msgspec.json.decode(payload, type=_Kind, strict=False).delta))
            return []
        chunk = block.say(delta)
        return [] if chunk is None else [chunk]

    def _end_block(self, index: int | None = None) -> list[Chunk]:
        block = self._block
        if block is None or (index is not None and block.index != index):
            return []
        self._block = None
        chunks = block.end()
        final = block.final()
        if block.kind != "text" or str(final.get("text", "")).strip():
            self.blocks.append(final)
        return chunks

    def _whole(self, event: _Event) -> list[Chunk]:
        """What a server that does not stream said."""
        chunks: list[Chunk] = []
        for index, start in enumerate(event.content or ()):
            chunks += [*self._begin(index, start), *self._end_block()]
        self._count(event.usage)
        self._contain(event.container)
        self._reason = event.stop_reason or ""
        self.done = bool(self._reason)
        return chunks

    def _count(self, usage: _Usage | None) -> None:
        if usage is not None:
            fields = msgspec.structs.asdict(usage)
            self._usage.update({name: value for name, value in fields.items() if value is not None})


def _is_read(event: _Kind) -> bool:
    """Whether the event is of a kind that is known here, and so is the kind of its delta."""
    if event.type != "content_block_delta" or not isinstance(event.delta, dict):
        return event.type in _EVENTS
    kind = cast("_Json", event.delta).get("type")
    return not isinstance(kind, str) or kind in _KNOWN_DELTAS


def _normalised(counts: dict[str, Any]) -> Usage:
    read = counts.get("cache_read_input_tokens", 0)
    written = counts.get("cache_creation_input_tokens", 0)
    details = cast("_Details | None", counts.get("output_tokens_details"))
    return Usage(
        input_tokens=counts.get("input_tokens", 0) + read + written,
        output_tokens=counts.get("output_tokens", 0),
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=(details and details.thinking_tokens) or 0,
    )


def _says_more(block: _Json, known: set[str]) -> bool:
    return any(value is not None for name, value in block.items() if name not in known)


def _encodable(block: _Json) -> _Json:
    """The block, half characters mended: a history that holds one could not be saved."""
    text = json.dumps(block, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.loads(mend(text))
    return block


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {}
