"""The stream of the Chat Completions API, as OpenAI documents it and as others speak it: payloads in, chunks
out. Nothing in it is trusted.
"""

import json
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
from atto.models.call_pieces import CallPieces
from atto.models.failures import Failures
from atto.models.surrogates import SurrogateJoiner, mend
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
    reasoning: Any = None  # Groq, OpenRouter
    tool_calls: list[_Call] | None = None


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: int | None = None  # DeepSeek

    def normalised(self) -> Usage:
        prompt = self.prompt_tokens_details or _Details()
        completion = self.completion_tokens_details or _Details()
        return Usage(
            input_tokens=self.prompt_tokens or 0,
            output_tokens=self.completion_tokens or 0,
            cache_read_tokens=prompt.cached_tokens or self.prompt_cache_hit_tokens or 0,
            reasoning_tokens=completion.reasoning_tokens or 0,
        )


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    message: _Delta | None = None  # a server that does not stream answers with this, whole
    finish_reason: str | None = None
    usage: _Usage | None = None  # Moonshot


class _Payload(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None
    object: str | None = None


_DONE = b"[DONE]"
_payloads = msgspec.json.Decoder(_Payload, strict=False)


class ChatReader:
    """Reads one answer: `read` each payload, then `end`.

    `finished`: a finish reason came; after it, only usage counts. `done`: the closing `[DONE]` came.
    """

    def __init__(self, failures: Failures) -> None:
        self._failures = failures
        self._calls = CallPieces()
        self._natives: dict[int, Any] = {}
        self._text = SurrogateJoiner()
        self._reasoning = SurrogateJoiner()
        self._usage: _Usage | None = None
        self._reason = ""
        self._spoke = False
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
        self._usage = chunk.usage or self._usage
        chunks: list[Chunk] = []
        for choice in chunk.choices or ():
            if not choice.index:
                self._usage = choice.usage or self._usage
                chunks += self._read_choice(choice)
        return chunks

    def end(self) -> list[Chunk]:
        """The last chunks of the answer. Raises `ModelError` if it was cut.

        Servers that never give a reason (Snowflake) end with `[DONE]`: that counts if they said anything.
        """
        if not self.finished and not (self.done and self._spoke):
            raise self._failures.cut()
        chunks = self._held_back()
        chunks += [PartDone(native, slot) for slot, native in self._natives.items()]
        if self._usage is not None:
            chunks.append(UsageChunk(self._usage.normalised()))
        return [*chunks, FinishChunk(self._finish())]

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

    def _read_choice(self, choice: _Choice) -> list[Chunk]:
        if self.finished:
            return []
        delta = choice.delta or choice.message or _Delta()
        chunks: list[Chunk] = []
        self._read_reasoning(delta, chunks)
        self._read_content(delta.content, chunks)
        self._say(delta.refusal, chunks)
        chunks += [self._read_call(call) for call in delta.tool_calls or ()]
        self._spoke = self._spoke or bool(chunks)
        self._end_choice(choice.finish_reason)
        return chunks

    def _end_choice(self, reason: str | None) -> None:
        if reason == "error":
            raise self._failures.cut("the provider ended the stream with the finish reason `error`")
        self._reason = reason or ""

    def _read_reasoning(self, delta: _Delta, chunks: list[Chunk]) -> None:
        plain = delta.reasoning if isinstance(delta.reasoning, str) else ""
        self._think(delta.reasoning_content or plain, chunks)

    def _read_content(self, content: str | list[_Piece] | None, chunks: list[Chunk]) -> None:
        if content is None or isinstance(content, str):
            self._say(content, chunks)
            return
        for piece in content:
            self._think(_flat(piece.thinking), chunks)
            self._say(piece.text, chunks)

    def _say(self, text: str | None, chunks: list[Chunk]) -> None:
        if text and (whole := self._text.join(text)):
            chunks.append(TextChunk(whole))

    def _think(self, text: str | None, chunks: list[Chunk]) -> None:
        if text and (whole := self._reasoning.join(text)):
            chunks.append(ReasoningChunk(whole))

    def _read_call(self, piece: _Call) -> ToolCallChunk:
        function = piece.function or _Function()
        call_id, name = mend(piece.id or ""), mend(function.name or "")
        arguments = _json_text(function.arguments)
        call = self._calls.place(index=piece.index, call_id=call_id, name=name, arguments=arguments)
        if piece.extra_content is not None:
            self._natives[call.slot] = {"extra_content": piece.extra_content}
        return ToolCallChunk(call.slot, call_id, name, call.joiner.join(arguments))

    def _held_back(self) -> list[Chunk]:
        chunks: list[Chunk] = [ReasoningChunk(text) for text in (self._reasoning.end(),) if text]
        chunks += [TextChunk(text) for text in (self._text.end(),) if text]
        ends = ((call.slot, call.joiner.end()) for call in self._calls.calls)
        return chunks + [ToolCallChunk(slot, arguments=text) for slot, text in ends if text]

    def _finish(self) -> str:
        if self._calls.calls and self._reason in {"", "stop", "function_call"}:
            return "tool_calls"
        if not self._calls.calls and self._reason in {"", "tool_calls"}:
            return "stop"
        return self._reason


def _flat(thinking: str | list[_Piece] | None) -> str:
    if thinking is None or isinstance(thinking, str):
        return thinking or ""
    return "".join(piece.text or "" for piece in thinking)


def _json_text(arguments: Any) -> str:
    """Arguments as text; some servers send the object itself."""
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments)
