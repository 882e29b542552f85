"""Reasoning in the Chat Completions API: OpenAI has no place for it, and each compatible server its own.

A server that thinks between tool calls wants to see again how it came to them, in the field in which it told
it: `reasoning_content` (DeepSeek, Moonshot, z.ai, older vLLM), `reasoning` (Groq, Ollama, newer vLLM),
`reasoning_details`, whole and in order (OpenRouter), pieces of `content` (Mistral). So the reader notes the
field in `native` of each reasoning part, and the request puts it back there.
"""

from collections.abc import Iterable
from typing import Any, cast

from atto.models.surrogates import mend
from atto.protocol.messages import AnyPart, ReasoningPart

FIELD = "field"
DETAILS = "reasoning_details"
CONTENT = "content"
_JOINED = ("text", "summary", "data")
_LATE = ("signature", "id", "format")


class Details:
    """OpenRouter's `reasoning_details`, put together from the pieces in which they are streamed."""

    def __init__(self) -> None:
        self._whole: list[dict[str, Any]] = []
        self._pieces: list[dict[str, list[str]]] = []

    def add(self, pieces: Iterable[Any]) -> None:
        """Takes the list of one chunk."""
        for piece in pieces:
            if isinstance(piece, dict):
                self._add(cast("dict[str, Any]", piece))

    def taken(self) -> list[dict[str, Any]]:
        """What came since the last time."""
        for detail, pieces in zip(self._whole, self._pieces, strict=True):
            detail.update({name: mend("".join(texts)) for name, texts in pieces.items()})
        whole, self._whole, self._pieces = self._whole, [], []
        return whole

    def text(self, pieces: Iterable[Any]) -> str:
        """The readable part of one chunk's list, for servers that tell it nowhere else."""
        shown = (cast("dict[str, Any]", piece) for piece in pieces if isinstance(piece, dict))
        return "".join(str(piece.get("text") or piece.get("summary") or "") for piece in shown)

    def _add(self, piece: dict[str, Any]) -> None:
        texts = {name: piece[name] for name in _JOINED if isinstance(piece.get(name), str)}
        if not self._goes_on(piece):
            self._whole.append(dict(piece))
            self._pieces.append({name: [text] for name, text in texts.items()})
            return
        last, pieces = self._whole[-1], self._pieces[-1]
        for name, text in texts.items():
            pieces.setdefault(name, []).append(text)
        last.update({name: piece[name] for name in _LATE if piece.get(name)})

    def _goes_on(self, piece: dict[str, Any]) -> bool:
        """Whether the piece belongs to the detail before it. Encrypted ones come whole."""
        if not self._whole or piece.get("type") == "reasoning.encrypted":
            return False
        last = self._whole[-1]
        same = all(last.get(name) == piece.get(name) for name in ("type", "index"))
        return same and (not piece.get("id") or not last.get("id") or piece["id"] == last["id"])


def returned(parts: Iterable[AnyPart]) -> dict[str, Any]:
    """The fields of an assistant message that give its reasoning back to the server that told it."""
    fields: dict[str, Any] = {}
    for part in parts:
        if not isinstance(part, ReasoningPart) or not isinstance(part.native, dict):
            continue
        native = cast("dict[str, Any]", part.native)
        if DETAILS in native:
            fields.setdefault(DETAILS, []).extend(native[DETAILS])
        elif native.get(FIELD) not in {None, CONTENT}:
            name = str(native[FIELD])
            fields[name] = fields.get(name, "") + part.text
    return fields


def is_in_content(part: AnyPart) -> bool:
    """Whether the part is reasoning that stood among the pieces of `content` (Mistral)."""
    return isinstance(part, ReasoningPart) and part.native == {FIELD: CONTENT}


def as_piece(part: AnyPart) -> dict[str, Any]:
    """Such a part as a piece of `content`."""
    text = part.text if isinstance(part, ReasoningPart) else ""
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
