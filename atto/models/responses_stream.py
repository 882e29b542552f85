"""The stream of the Responses API: payloads in, chunks out. Nothing in it is trusted.

Each output item becomes one part, whose `native` is the item as `response.output_item.done` has it: before
that event, `encrypted_content` may be incomplete.
"""

import json
from typing import Any, cast

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
from atto.models.failures import Failures
from atto.models.responses_events import Event, Response, UsageCount, decode_event
from atto.models.surrogates import SurrogateJoiner, mend
from atto.protocol.errors import InvalidTurn, ModelError

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
    """An output item that is being said. `spoke`: a delta of it came."""

    def __init__(self) -> None:
        self.joiner = SurrogateJoiner()
        self.spoke = False


class ResponsesReader:
    """Reads one answer: `read` each payload, then `end`. `done`: a terminal event came; the rest is void."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._items: dict[int, _Item] = {}
        self._prose: int | None = None
        self._held: list[Chunk] = []
        self._calls = False
        self._reason = ""
        self._usage: UsageCount | None = None
        self.done = False

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
            chunks.append(UsageChunk(self._usage.normalised()))
        return [*chunks, FinishChunk(self._reason or ("tool_calls" if self._calls else "stop"))]

    def _read_event(self, event: Event) -> list[Chunk]:
        kind, index = event.type, event.output_index
        if kind in _TEXT or kind in _REASONING:
            return self._said(index, event.delta, TextChunk if kind in _TEXT else ReasoningChunk)
        if kind == _ARGUMENTS:
            return self._argued(index, event.delta)
        if kind == "response.output_item.added" and event.item is not None:
            return self._began(index, event.item)
        if kind == "response.output_item.done" and event.item is not None:
            return self._ended(index, event.item)
        if kind == "response.reasoning_summary_part.added" and event.summary_index > 0:
            return [ReasoningChunk("\n\n")]
        if event.response is not None:
            return self._read_response(kind, event.response)
        return []

    def _began(self, index: int, item: dict[str, Any]) -> list[Chunk]:
        match item.get("type"):
            case "message":
                self._prose = index
                return [TextChunk("")]
            case "reasoning":
                self._prose = index
                return [ReasoningChunk("")]
            case "function_call":
                return [self._call(index, item)]
            case _:
                return []

    def _said(self, index: int, delta: Any, kind: type[TextChunk] | type[ReasoningChunk]) -> list[Chunk]:
        text = self._item(index).joiner.join(_text(delta))
        self._items[index].spoke = True
        return [kind(text)] if text else []

    def _argued(self, index: int, delta: Any) -> list[Chunk]:
        item = self._item(index)
        item.spoke = True
        self._calls = True
        return [ToolCallChunk(index, arguments=item.joiner.join(_text(delta)))]

    def _call(self, index: int, item: dict[str, Any], arguments: str = "") -> ToolCallChunk:
        self._calls = True
        call_id = item.get("call_id") or item.get("id")
        return ToolCallChunk(index, mend(_text(call_id)), mend(_text(item.get("name"))), arguments)

    def _ended(self, index: int, item: dict[str, Any]) -> list[Chunk]:
        """The end of an item, and what was never streamed of it."""
        known = self._items.pop(index, None) or _Item()
        rest = known.joiner.end()
        match item.get("type"):
            case "function_call":
                whole = rest if known.spoke else mend(_text(item.get("arguments")))
                return [self._call(index, item, whole), PartDone(item, index)]
            case "message":
                whole = rest if known.spoke else _texts(item.get("content"))
                return self._close_prose(index, TextChunk(whole), item)
            case "reasoning":
                whole = rest if known.spoke else _texts(item.get("summary"), "\n\n")
                return self._close_prose(index, ReasoningChunk(whole), item)
            case _:
                # in the middle of another item's text it would be taken for the end of that
                opaque = PartDone(item)
                if self._prose is None:
                    return [opaque]
                self._held.append(opaque)
                return []

    def _close_prose(self, index: int, last: Chunk, item: dict[str, Any]) -> list[Chunk]:
        held = self._held
        if self._prose == index:
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
        chunks = [] if kind else self._whole(response)
        self._usage = response.usage
        self._reason = _finish(kind, response)
        self.done = True
        return chunks

    def _whole(self, response: Response) -> list[Chunk]:
        """What a server that does not stream said."""
        return [
            chunk for index, item in enumerate(response.output or ()) for chunk in self._ended(index, item)
        ]

    def _reported(self, error: Any) -> ModelError:
        if isinstance(error, dict):
            fields = cast("dict[str, Any]", error)
            if fields.get("code") in _BLAMES:
                return self._failures.in_stream({**fields, "status": 400})
        return self._failures.in_stream(error)

    def _item(self, index: int) -> _Item:
        if index not in self._items:
            self._items[index] = _Item()
        return self._items[index]


def _finish(kind: str, response: Response) -> str:
    """Why it ended; empty: by itself."""
    if kind == "response.completed" or (not kind and response.status != "incomplete"):
        return ""
    reason = (response.incomplete_details and response.incomplete_details.reason) or "incomplete"
    return _REASONS.get(reason, reason)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _texts(content: Any, between: str = "") -> str:
    """The texts of an item's content: `output_text`, `refusal`, `summary_text`."""
    if not isinstance(content, list):
        return ""
    return mend(between.join(map(_text_of, cast("list[Any]", content))))


def _text_of(piece: Any) -> str:
    if not isinstance(piece, dict):
        return ""
    fields = cast("dict[str, Any]", piece)
    return _text(fields.get("text") or fields.get("refusal"))
