"""The stream of the Chat Completions API, as OpenAI documents it and as others speak it: payloads in, chunks
out. Nothing in it is trusted.
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
from atto.models.call_pieces import CallPieces
from atto.models.chat_reasoning import CONTENT, DETAILS, FIELD, Details
from atto.models.failures import Failures
from atto.models.surrogates import SurrogateJoiner, mend
from atto.models.usage_counts import usage_of
from atto.protocol.codec import check_depth
from atto.protocol.errors import InvalidTurn
from atto.protocol.messages import Usage


class _Piece(msgspec.Struct):
    """Content as a list (Mistral): texts, and thinking that holds texts."""

    text: str | None = None
    thinking: "str | list[_Piece] | None" = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: Any = None  # Gemini's thought signature, through its compatible endpoint


class _Delta(msgspec.Struct):
    content: str | list[_Piece] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None  # DeepSeek, z.ai, vLLM
    reasoning: Any = None  # Groq, Ollama, OpenRouter
    reasoning_details: Any = None  # OpenRouter
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None  # of before there were tools


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None  # a server that does not stream answers with this, whole
    text: str | None = None  # a server that thinks that this is the completions API
    finish_reason: str | None = None
    usage: Any = None  # Moonshot
    error: Any = None  # OpenRouter


class _Groq(msgspec.Struct):
    usage: Any = None


class _Payload(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: Any = None
    x_groq: _Groq | None = None
    error: Any = None
    object: str | None = None


_DONE = b"[DONE]"
_NATURAL = frozenset({"stop", "tool_calls"})
_SYNONYMS = {
    **dict.fromkeys(
        ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "finished"), "stop"
    ),
    **dict.fromkeys(("tool_calls", "tool_call", "tool_use", "function_call"), "tool_calls"),
    **dict.fromkeys(("length", "max_tokens", "model_length", "max_output_tokens", "incomplete"), "length"),
    **dict.fromkeys(("content_filter", "sensitive", "safety", "content_filtered"), "content_filter"),
}
"""Other servers' words for why an answer ended."""
_payloads = msgspec.json.Decoder(_Payload, strict=False)


class ChatReader:
    """Reads one answer: `read` each payload, then `end`.

    `finished`: a finish reason came. What follows still counts, since some servers give one with every chunk:
    then `resumed` is set, and the finish is that of the whole only where the stream ends. `done`: the closing
    `[DONE]` came. `ended_speaking`: the last finish came together with a piece of the answer.
    """

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._calls = CallPieces()
        self._natives: dict[int, Any] = {}
        self._text = SurrogateJoiner()
        self._reasoning = SurrogateJoiner()
        self._details = Details()
        self._thinks_in = ""
        self._writing = False
        self._usage: Usage | None = None
        self._reason = ""
        self._cut = ""
        self._spoke = False
        self._refused = False
        self.ended_speaking = False
        self.resumed = False
        self.done = False

    @property
    def finished(self) -> bool:
        """A finish reason came."""
        return bool(self._reason)

    def read(self, payload: bytes) -> list[Chunk]:
        """The chunks in `payload`. Raises `ModelError` for an error object, and for what makes no sense."""
        if payload.strip() == _DONE:
            self.done = True
            return []
        chunk = self._decode(payload)
        if chunk.usage is not None or chunk.x_groq is not None:
            self._count(chunk.usage or (chunk.x_groq and chunk.x_groq.usage))
        chunks: list[Chunk] = []
        for choice in chunk.choices or ():
            if not choice.index:  # one answer is asked for
                self._read_choice(choice, chunks)
        return chunks

    def end(self) -> list[Chunk]:
        """The last chunks of the answer. Raises `ModelError` if it was cut.

        Servers that never give a reason (Snowflake) end with `[DONE]`: that counts if they said anything.
        """
        if not self.finished and not (self.done and self._spoke):
            raise self._failures.cut()
        chunks = self._held_back()
        self._end_reasoning(chunks)
        chunks += [PartDone(native, slot) for slot, native in self._natives.items()]
        if self._usage is not None:
            chunks.append(UsageChunk(self._usage))
        return [*chunks, FinishChunk(self._finish())]

    def _count(self, counts: Any) -> None:
        self._usage = usage_of(counts) or self._usage

    def _decode(self, payload: bytes) -> _Payload:
        try:
            check_depth(payload)
            chunk = self._parse(payload)
        except (InvalidTurn, msgspec.ValidationError, ValueError) as error:
            raise self._failures.cut(f"a chunk of the stream is not valid: {error}") from None
        if chunk.error or chunk.object == "error":
            raise self._failures.in_stream(chunk.error or json.loads(payload))
        return chunk

    def _parse(self, payload: bytes) -> _Payload:
        try:
            return _payloads.decode(payload)
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, UnicodeDecodeError):
            # half a surrogate pair is no JSON to msgspec; the joiners put the halves together
            loose = json.loads(payload.decode("utf-8", "replace"))
            return msgspec.convert(loose, _Payload, strict=False)

    def _read_choice(self, choice: _Choice, chunks: list[Chunk]) -> None:
        if choice.usage is not None:
            self._count(choice.usage)
        delta = choice.delta
        if delta is None or (choice.message is not None and not self._spoke):
            # beside deltas the message repeats them
            delta = choice.message if choice.message is not None and not self._spoke else _Delta()
        before = len(chunks)
        self._read_reasoning(delta, chunks)
        self._read_content(delta.content if delta.content is not None else choice.text, chunks)
        if delta.refusal:
            self._refused = True
            self._say(delta.refusal, chunks)
        for call in delta.tool_calls or ():
            self._read_call(call, chunks)
        if delta.function_call is not None and not delta.tool_calls:
            self._read_call(_Call(index=0, function=delta.function_call), chunks)
        if len(chunks) > before:
            self._spoke = True
            self.resumed = self.resumed or bool(self._reason)
        if choice.finish_reason or choice.error:
            self.ended_speaking = len(chunks) > before
            self._end_choice(choice.finish_reason or "", choice.error)

    def _end_choice(self, reason: str, error: Any) -> None:
        if error:
            raise self._failures.in_stream(error)
        if reason == "error":
            raise self._failures.cut("the provider ended the stream with the finish reason `error`")
        reason = _SYNONYMS.get(reason.lower(), reason)
        self._reason = self._reason or reason
        if reason not in {"", *_NATURAL}:
            self._cut = reason

    def _read_reasoning(self, delta: _Delta, chunks: list[Chunk]) -> None:
        text, field = delta.reasoning_content, "reasoning_content"
        if not text and delta.reasoning is not None:
            text, field = (delta.reasoning if isinstance(delta.reasoning, str) else ""), "reasoning"
        if isinstance(delta.reasoning_details, list):
            pieces = cast("list[Any]", delta.reasoning_details)
            self._details.add(pieces)
            text, field = text or self._details.text(pieces), DETAILS
            if pieces and not text:  # a signature, or what is encrypted
                self._thinks_in = DETAILS
        if text:
            self._think(text, field, chunks)

    def _read_content(self, content: str | list[_Piece] | None, chunks: list[Chunk]) -> None:
        if content is None or isinstance(content, str):
            self._say(content, chunks)
            return
        for piece in content:
            if thought := _flat(piece.thinking):
                self._think(thought, CONTENT, chunks)
            self._say(piece.text, chunks)

    def _say(self, text: str | None, chunks: list[Chunk]) -> None:
        if text and (whole := self._text.join(text)):
            if self._thinks_in:
                self._end_reasoning(chunks)
            self._writing = True
            chunks.append(TextChunk(whole))

    def _think(self, text: str, field: str, chunks: list[Chunk]) -> None:
        if whole := self._reasoning.join(text):
            self._thinks_in = field
            self._writing = False
            chunks.append(ReasoningChunk(whole))

    def _end_reasoning(self, chunks: list[Chunk]) -> None:
        """Notes in which field the reasoning came that ends here."""
        field, self._thinks_in = self._thinks_in, ""
        if not field:
            return
        if rest := self._reasoning.end():
            chunks.append(ReasoningChunk(rest))
        details = self._details.taken()
        if self._writing:  # what was only a signature, or encrypted, came after a text: it is no part of that
            self._writing = False
            chunks.append(PartDone(None))
        chunks.append(PartDone({DETAILS: details} if details else {FIELD: field}))

    def _read_call(self, piece: _Call, chunks: list[Chunk]) -> None:
        if self._thinks_in:
            self._end_reasoning(chunks)
        self._writing = False
        function = piece.function or _Function()
        call_id, name = mend(piece.id or ""), mend(function.name or "")
        arguments = _json_text(function.arguments)
        call = self._calls.place(index=piece.index, call_id=call_id, name=name, arguments=arguments)
        if piece.extra_content is not None:
            self._natives[call.slot] = {"extra_content": piece.extra_content}
        chunks.append(ToolCallChunk(call.slot, call_id, name, call.joiner.join(arguments)))

    def _held_back(self) -> list[Chunk]:
        chunks: list[Chunk] = [ReasoningChunk(text) for text in (self._reasoning.end(),) if text]
        chunks += [TextChunk(text) for text in (self._text.end(),) if text]
        ends = ((call.slot, call.joiner.end()) for call in self._calls.calls)
        return chunks + [ToolCallChunk(slot, arguments=text) for slot, text in ends if text]

    def _finish(self) -> str:
        if self._reason not in {"", *_NATURAL}:
            return self._reason
        if self._calls.calls:
            return self._cut or "tool_calls"  # said later, it still says that a call may lack its end
        return "refusal" if self._refused else "stop"


def _flat(thinking: str | list[_Piece] | None) -> str:
    if thinking is None or isinstance(thinking, str):
        return thinking or ""
    return "".join(piece.text or "" for piece in thinking)


def _json_text(arguments: Any) -> str:
    """Arguments as text; some servers send the object itself."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments)
