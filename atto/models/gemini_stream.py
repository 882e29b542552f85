"""The stream of Gemini's `streamGenerateContent`: payloads in, chunks out. Nothing in it is trusted.

**What is kept of a part.** Gemini signs its thinking (`thoughtSignature`), on parts of any kind, and wants
the signed parts back as they came; of parallel calls only the first is signed, and a stream may end with an
empty text that is signed. Google's rules (https://ai.google.dev/gemini-api/docs/thought-signatures): a
signature goes back inside the part in which it came; parts with signatures are not joined, neither with one
another nor with parts without. So a part that holds anything beside its text is closed off from its
neighbours and keeps its JSON. Texts without a signature are pieces of one text, cut where the stream was;
joining them loses nothing, and saves a native part for every few words.
"""

import json
from collections.abc import Mapping
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
from atto.models.gemini_errors import stream_error
from atto.models.surrogates import SurrogateJoiner, mend
from atto.protocol.codec import check_depth
from atto.protocol.errors import InvalidTurn, ModelError
from atto.protocol.messages import Usage

_DONE = b"[DONE]"  # of proxies that put OpenAI's marker at the end of any stream

# A part's JSON lies deeper inside an event or a snapshot than in the payload, and must be readable there.
_AROUND = 10

_REASONS = {
    "STOP": "stop",
    "FUNCTION_CALL": "stop",  # of servers that speak like Gemini
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",  # cut at the API's own limit; going on needs a further request
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "MODEL_ARMOR",
            "ESCALATION",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
        ),
        "content_filter",
    ),
}
# The model made something that the API could not read as an answer. That is a matter of sampling, so the same
# request mostly succeeds the next time; and there is no answer to go on with.
_MISHAPS = frozenset({"MALFORMED_FUNCTION_CALL", "MALFORMED_RESPONSE", "UNEXPECTED_TOOL_CALL"})
# The request or the account is at fault.
_REFUSALS = frozenset({"MISSING_THOUGHT_SIGNATURE", "PUP_LIMITED_DISABLED"})
_UNSPECIFIED = frozenset({"", "FINISH_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED"})


class _Content(msgspec.Struct):
    parts: list[dict[str, Any]] | None = None


class _Candidate(msgspec.Struct, rename="camel"):
    index: int | None = None
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None


class _Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class _Usage(msgspec.Struct, rename="camel"):
    prompt_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None

    def normalised(self) -> Usage:
        """The prompt includes what was cached; the candidates do not include the thoughts."""
        thoughts = self.thoughts_token_count or 0
        return Usage(
            input_tokens=(self.prompt_token_count or 0) + (self.tool_use_prompt_token_count or 0),
            output_tokens=(self.candidates_token_count or 0) + thoughts,
            cache_read_tokens=self.cached_content_token_count or 0,
            reasoning_tokens=thoughts,
        )


class _Payload(msgspec.Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    usage_metadata: _Usage | None = None
    prompt_feedback: _Feedback | None = None
    error: Any = None


_Payloads = _Payload | list[_Payload]
_payloads: msgspec.json.Decoder[_Payloads] = msgspec.json.Decoder(_Payloads, strict=False)


class GeminiReader:
    """Reads one answer: `read` each payload, then `end`. `finished`: a finish reason came."""

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._calls = 0
        self._writing = False
        self._text = SurrogateJoiner()
        self._reasoning = SurrogateJoiner()
        self._reason = ""
        self._failure: ModelError | None = None
        self.ended_speaking = False
        self.resumed = False
        self.done = False

    @property
    def finished(self) -> bool:
        """A finish reason came. What follows still counts: some servers send one with every payload."""
        return bool(self._reason)

    def read(self, payload: bytes) -> list[Chunk]:
        """The chunks in `payload`. Raises `ModelError` for an error object, and for what makes no sense."""
        chunks: list[Chunk] = []
        for document in self._decode(payload):
            if document.error:
                raise stream_error(self._failures, document.error)
            if document.usage_metadata is not None:
                chunks.append(UsageChunk(document.usage_metadata.normalised()))
            self._read_feedback(document.prompt_feedback)
            for candidate in document.candidates or ():
                if not candidate.index:
                    self._read_candidate(candidate, chunks)
        return chunks

    def end(self) -> list[Chunk]:
        """The last chunks of the answer. Raises `ModelError` if it was cut, or is none."""
        if self._failure is not None:
            raise self._failure
        if not self.finished:
            raise self._failures.cut()
        calls_tools = self._calls and self._reason == "stop"  # Gemini's own reason for calls is STOP
        return [*self._held_back(), FinishChunk("tool_calls" if calls_tools else self._reason)]

    def _decode(self, payload: bytes) -> list[_Payload]:
        if payload.strip() == _DONE:
            self.done = self.finished
            return []
        try:
            check_depth(payload, around=_AROUND)
            found = self._parse(payload)
        except (InvalidTurn, msgspec.ValidationError, ValueError) as error:
            raise self._failures.cut(f"a chunk of the stream is not valid: {error}") from None
        return found if isinstance(found, list) else [found]

    def _parse(self, payload: bytes) -> _Payloads:
        try:
            return _payloads.decode(payload)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            # half a surrogate pair is no JSON to msgspec; the joiners put the halves together
            loose = json.loads(payload.decode("utf-8", "replace"))
            return msgspec.convert(loose, _Payloads, strict=False)

    def _read_feedback(self, feedback: _Feedback | None) -> None:
        """A prompt that is blocked has no candidates: the feedback is the end of the answer."""
        reason = (feedback.block_reason if feedback else None) or ""
        if reason not in _UNSPECIFIED:
            self._reason = self._reason or "content_filter"

    def _read_candidate(self, candidate: _Candidate, chunks: list[Chunk]) -> None:
        parts = (candidate.content and candidate.content.parts) or ()
        for part in parts:
            self._read_part(part, chunks)
        self.resumed = self.resumed or bool(parts and self._reason)
        reason = candidate.finish_reason or ""
        if reason not in _UNSPECIFIED and (not self._reason or (self._calls and self._reason == "stop")):
            self.ended_speaking = bool(parts)
            self._reason = _REASONS.get(reason, reason.lower())
            self._failure = self._failed(reason, candidate.finish_message)

    def _failed(self, reason: str, message: str | None) -> ModelError | None:
        """Raised at the end only, so that what the provider counted until then is not lost."""
        text = f"the answer ended with {reason}" + (f": {message}" if message else "")
        if reason in _MISHAPS:
            return self._failures.cut(text)
        return self._failures.refused(text) if reason in _REFUSALS else None

    def _read_part(self, part: dict[str, Any], chunks: list[Chunk]) -> None:
        call, text = part.get("functionCall"), part.get("text")
        if isinstance(call, dict):
            self._read_call(part, cast("dict[str, Any]", call), chunks)
        elif isinstance(text, str) and part.keys() <= {"text", "thought"}:
            self._write(text, chunks, thought=bool(part.get("thought")))
        else:
            self._keep(part, chunks)

    def _write(self, text: str, chunks: list[Chunk], *, thought: bool) -> None:
        joiner = self._reasoning if thought else self._text
        if text and (whole := joiner.join(text)):
            chunks.append(ReasoningChunk(whole) if thought else TextChunk(whole))
            self._writing = True

    def _keep(self, part: dict[str, Any], chunks: list[Chunk]) -> None:
        """A part with a signature, or that is neither text nor a call: a part of its own, with its JSON."""
        held = self._held_back()
        if held or self._writing:
            chunks += [*held, PartDone(None)]
        native = _encodable(part)
        if isinstance(native.get("text"), str):
            text = str(native["text"])
            chunks.append(ReasoningChunk(text) if native.get("thought") else TextChunk(text))
        chunks.append(PartDone(native))
        self._writing = False

    def _read_call(self, part: dict[str, Any], call: dict[str, Any], chunks: list[Chunk]) -> None:
        if call.get("partialArgs") or call.get("willContinue"):
            raise self._failures.refused(
                "a tool call came in pieces, which is not supported: leave out `streamFunctionCallArguments`"
            )
        chunks += self._held_back()
        slot, self._calls = self._calls, self._calls + 1
        part = _encodable(part)
        call = part["functionCall"]
        call_id, name = str(call.get("id") or ""), str(call.get("name") or "")
        chunks.append(ToolCallChunk(slot, call_id, name, _json_text(call.get("args"))))
        chunks.append(PartDone(_native_call(part, call), slot))
        self._writing = False

    def _held_back(self) -> list[Chunk]:
        chunks: list[Chunk] = [ReasoningChunk(text) for text in (self._reasoning.end(),) if text]
        return chunks + [TextChunk(text) for text in (self._text.end(),) if text]


def _native_call(part: dict[str, Any], call: dict[str, Any]) -> dict[str, Any] | None:
    """The call's JSON without its arguments, which the part has anyway, and which may be long. None where
    nothing else is worth keeping. Its id is: an answer carries one only if the provider gave it.
    """
    if not (isinstance(call.get("args"), dict) and call["args"]):
        return part
    rest = {name: value for name, value in call.items() if name != "args"}
    if part.keys() == {"functionCall"} and rest.keys() == {"name"}:
        return None
    return {**part, "functionCall": rest}


def _json_text(arguments: Any) -> str:
    """Arguments as text, as other APIs send them. Some servers send text here, too."""
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return msgspec.json.encode(arguments).decode()


def _encodable(part: Mapping[str, Any]) -> dict[str, Any]:
    """The part, half characters mended: it must be encodable as UTF-8 wherever it goes."""
    try:
        msgspec.json.encode(part)
    except UnicodeEncodeError:
        return json.loads(mend(json.dumps(part, ensure_ascii=False)))
    return dict(part)
