"""The stream of the Responses API: payloads in, chunks out. Nothing in it is trusted.

Each output item becomes one part, whose `native` is the item as `response.output_item.done` has it: before
that event, `encrypted_content` may be incomplete.
"""

import json
from collections.abc import Iterable
from typing import Any, cast

import msgspec

from atto.models.assemble import parse_arguments
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
from atto.models.responses_events import Event, Response, decode_event
from atto.models.surrogates import SurrogateJoiner, mend
from atto.models.usage_counts import usage_of
from atto.protocol.errors import InvalidTurn, ModelError
from atto.protocol.messages import Usage

_TEXT = {"response.output_text.delta", "response.refusal.delta"}
_REASONING = {"response.reasoning_summary_text.delta", "response.reasoning_text.delta"}
_ARGUMENTS = "response.function_call_arguments.delta"
_TERMINAL = {"response.completed", "response.incomplete"}
_REASONS = {"max_output_tokens": "length"}
# those of the error codes (openai.types.responses.ResponseError) that blame the request
_BLAMES = frozenset(
    {
        "invalid_prompt",
        "data_residency_mismatch",
        "bio_policy",
        "misalignment_policy_violation",
        "invalid_image",
        "invalid_image_format",
        "invalid_base64_image",
        "invalid_image_url",
        "image_too_large",
        "image_too_small",
        "image_parse_error",
        "image_content_policy_violation",
        "invalid_image_mode",
        "image_file_too_large",
        "unsupported_image_media_type",
        "empty_image_file",
        "image_file_not_found",
    }
)


class _Item:
    """An output item that is being said. `slot`: its place among all; `said`: what was streamed of it.

    `whole`: how its text or arguments read at its end, None before that.
    """

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.kind = ""
        self.ids: set[str] = set()
        self.joiner = SurrogateJoiner()
        self.said: list[str] = []
        self.whole: str | None = None

    def join(self, text: str) -> str:
        """What can leave of `text`."""
        piece = self.joiner.join(text)
        self.said.append(piece)
        return piece

    def rest(self, whole: str) -> str:
        """What was not streamed of `whole`. Where the two differ, what was streamed stands: it was heard."""
        held = self.joiner.end()
        said = "".join(self.said) + held
        self.said = [said]
        return held + whole[len(said) :] if whole.startswith(said) else held


class ResponsesReader:
    """Reads one answer: `read` each payload, then `end`. `done`: a terminal event came; the rest is void."""

    ended_speaking = False
    resumed = False

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._items: list[_Item] = []
        self._by_index: dict[int, _Item] = {}
        self._prose: _Item | None = None
        self._held: list[Chunk] = []
        self._calls = False
        self._refused = False
        self._reason = ""
        self._usage: Usage | None = None
        self.done = False

    @property
    def finished(self) -> bool:
        """The same as `done`."""
        return self.done

    def read(self, payload: bytes) -> list[Chunk]:
        """The chunks in `payload`. Raises `ModelError` for an error event, and for what makes no sense."""
        if self.done:
            return []
        try:
            event = decode_event(payload)
        except (InvalidTurn, msgspec.MsgspecError, ValueError) as error:
            raise self._failures.cut(f"an event of the stream is not valid: {error}") from None
        if event.type == "error" or (event.error and not event.type):
            raise self._reported(event.error or json.loads(payload))
        return self._read_event(event)

    def end(self) -> list[Chunk]:
        """The last chunks of the answer. Raises `ModelError` if it was cut."""
        if not self.done:
            raise self._failures.cut()
        chunks: list[Chunk] = [*self._held]
        if self._usage is not None:
            chunks.append(UsageChunk(self._usage))
        natural = "tool_calls" if self._calls else "refusal" if self._refused else "stop"
        return [*chunks, FinishChunk(self._reason or natural)]

    def _read_event(self, event: Event) -> list[Chunk]:
        kind = event.type
        if kind in _TEXT:
            self._refused = self._refused or kind != "response.output_text.delta"
            return self._said(self._item(event), event.delta, TextChunk)
        if kind in _REASONING:
            return self._said(self._item(event), event.delta, ReasoningChunk)
        if kind == _ARGUMENTS:
            return self._argued(self._item(event), event.delta)
        if kind == "response.output_item.added" and event.item is not None:
            return self._began(event, event.item)
        if kind == "response.output_item.done" and event.item is not None:
            return self._ended(self._item(event, event.item), event.item)
        if kind == "response.reasoning_summary_part.added" and event.summary_index > 0:
            return self._said(self._item(event), "\n\n", ReasoningChunk)
        if event.response is not None:
            return self._read_response(kind, event.response)
        return []

    def _item(self, event: Event, item: dict[str, Any] | None = None) -> _Item:
        """The item that an event is of: by its index, else by its id, else the last; begun if it is new."""
        ids = {event.item_id or ""} if item is None else _ids(item)
        ids.discard("")
        found = None if event.output_index is None else self._by_index.get(event.output_index)
        if found is None and (event.output_index is None or ids):
            found = next((known for known in self._items if known.ids & ids), None)
        if found is None and event.output_index is None and not ids and self._items:
            found = self._items[-1]
        return found or self._begin(event.output_index, ids)

    def _begin(self, index: int | None, ids: set[str]) -> _Item:
        item = _Item(len(self._items))
        item.ids |= ids
        self._items.append(item)
        if index is not None:
            self._by_index[index] = item
        return item

    def _began(self, event: Event, item: dict[str, Any]) -> list[Chunk]:
        """A start. The second of an item says nothing; another item's takes the place over."""
        ids = _ids(item)
        known = self._item(event, item) if event.output_index is not None or ids else self._begin(None, ids)
        if known.kind and known.ids and ids and not known.ids & ids:
            known = self._begin(event.output_index, ids)
        elif known.kind:
            return []
        known.ids |= ids
        known.kind = str(item.get("type"))
        match known.kind:
            case "message" if not known.said:
                self._prose = known
                return [TextChunk("")]
            case "reasoning" if not known.said:
                self._prose = known
                return [ReasoningChunk("")]
            case "function_call":
                return [self._call(known, item)]
            case _:
                return []

    def _said(self, item: _Item, delta: Any, kind: type[TextChunk] | type[ReasoningChunk]) -> list[Chunk]:
        text = _text(delta)
        if item.whole is not None:
            # after its end: a piece that is said again, or one that its end left out
            return [] if item.whole.endswith(text) else [kind(mend(text))]
        piece = item.join(text)
        return [kind(piece)] if piece else []

    def _argued(self, item: _Item, delta: Any) -> list[Chunk]:
        if item.whole is not None:
            if parse_arguments(item.whole) is None:
                raise self._failures.cut("a piece of a call's arguments came after its end")
            return []  # nothing belongs behind a whole object
        self._calls = True
        return [ToolCallChunk(item.slot, arguments=item.join(_text(delta)))]

    def _call(self, item: _Item, call: dict[str, Any], arguments: str = "") -> ToolCallChunk:
        self._calls = True
        call_id = call.get("call_id") or call.get("id")
        return ToolCallChunk(item.slot, mend(_text(call_id)), mend(_text(call.get("name"))), arguments)

    def _ended(self, known: _Item, item: dict[str, Any]) -> list[Chunk]:
        """The end of an item, and what was never streamed of it. A second end says nothing."""
        if known.whole is not None:
            return []
        known.ids |= _ids(item)
        known.whole = whole = _whole_of(item)
        rest = known.rest(whole)
        match item.get("type"):
            case "function_call":
                return [self._call(known, item, rest), PartDone(item, known.slot)]
            case "message":
                self._refused = self._refused or _refuses(item.get("content"))
                return self._close_prose(known, TextChunk(rest), item)
            case "reasoning":
                return self._close_prose(known, ReasoningChunk(rest), item)
            case _:
                # in the middle of another item's text it would be taken for the end of that
                opaque = PartDone(item)
                if self._prose is None:
                    return [opaque]
                self._held.append(opaque)
                return []

    def _close_prose(self, known: _Item, last: Chunk, item: dict[str, Any]) -> list[Chunk]:
        held = self._held
        if self._prose is known:
            self._prose, self._held = None, []
            return [last, PartDone(item), *held]
        return [last, PartDone(item)]

    def _read_response(self, kind: str, response: Response) -> list[Chunk]:
        if kind == "response.failed" or response.status == "failed":
            raise self._reported(response.error or "the response failed")
        if kind == "response.cancelled" or response.status == "cancelled":
            raise self._failures.cut("the provider cancelled the response")
        if kind and kind not in _TERMINAL:
            return []
        chunks = self._unsaid(response.output or ())
        self._usage = usage_of(response.usage)
        self._reason = _finish(kind, response)
        self.done = True
        return chunks

    def _unsaid(self, output: Iterable[dict[str, Any]]) -> list[Chunk]:
        """What the whole response holds beyond the events: all, of a server that does not stream."""
        chunks: list[Chunk] = []
        for index, item in enumerate(output):
            ids = _ids(item)
            known = next((one for one in self._items if one.ids & ids), None) or self._by_index.get(index)
            if known is None:
                known = self._begin(index, ids)
            chunks += self._ended(known, item)
        return chunks

    def _reported(self, error: Any) -> ModelError:
        if isinstance(error, dict):
            fields = cast("dict[str, Any]", error)
            if fields.get("code") in _BLAMES:
                return self._failures.in_stream({**fields, "status": 400})
        return self._failures.in_stream(error)


def _finish(kind: str, response: Response) -> str:
    """Why it ended; empty: by itself."""
    if kind == "response.completed" or (not kind and response.status != "incomplete"):
        return ""
    reason = (response.incomplete_details and response.incomplete_details.reason) or "incomplete"
    return _REASONS.get(reason, reason)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _ids(item: dict[str, Any]) -> set[str]:
    return {_text(item.get("id")), _text(item.get("call_id"))} - {""}


def _whole_of(item: dict[str, Any]) -> str:
    """The text or the arguments of an item that is complete."""
    match item.get("type"):
        case "function_call":
            return mend(_text(item.get("arguments")))
        case "message":
            return _texts(item.get("content"))
        case "reasoning":
            return _texts(item.get("summary"), "\n\n") or _texts(item.get("content"))
        case _:
            return ""


def _texts(content: Any, between: str = "") -> str:
    """The texts of an item's content: `output_text`, `refusal`, `summary_text`, `reasoning_text`."""
    if not isinstance(content, list):
        return ""
    return mend(between.join(map(_text_of, cast("list[Any]", content))))


def _text_of(piece: Any) -> str:
    if not isinstance(piece, dict):
        return ""
    fields = cast("dict[str, Any]", piece)
    return _text(fields.get("text") or fields.get("refusal"))


def _refuses(content: Any) -> bool:
    pieces = cast("list[Any]", content) if isinstance(content, list) else []
    objects = (cast("dict[str, Any]", piece) for piece in pieces if isinstance(piece, dict))
    return any(piece.get("type") == "refusal" for piece in objects)
