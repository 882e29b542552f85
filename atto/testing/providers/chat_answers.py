"""What servers in the manner of Chat Completions answer with."""

import secrets
from typing import Any

from atto.testing.model_dialect import Said
from atto.testing.providers.rule import Json, sse

_USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 12,
    "total_tokens": 21,
    "completion_tokens_details": {"reasoning_tokens": 5},
}
_NINE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
DONE = b"data: [DONE]\n\n"


def nine() -> str:
    """An id as Mistral makes them."""
    return "".join(secrets.choice(_NINE) for _ in range(9))


def call_id() -> str:
    """An id as OpenAI makes them."""
    return f"call_{secrets.token_hex(12)}"


def stream(*deltas: Json, finish: str) -> list[bytes]:
    """Deltas, why it ended, what it cost."""
    payloads = [_chunk(delta) for delta in ({"role": "assistant", "content": ""}, *deltas)]
    payloads.append(_chunk({}, finish))
    payloads.append({**_chunk({}), "choices": [], "usage": _USAGE})
    return [*sse(*payloads), DONE]


def _chunk(delta: Json, finish: str | None = None) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def texts(said: Said) -> list[Json]:
    """The text, a delta a piece."""
    return [{"content": piece} for piece in said.text]


def calls(said: Said, make_id: Any = call_id) -> list[Json]:
    """The calls: id and name with the first delta, the arguments in pieces."""
    deltas: list[Json] = []
    for at, call in enumerate(said.calls):
        begun = {"name": call.name, "arguments": ""}
        deltas.append(
            _piece({"index": at, "id": call.id or make_id(), "type": "function", "function": begun})
        )
        deltas += [_piece({"index": at, "function": {"arguments": text}}) for text in call.arguments]
    return deltas


def whole_calls(said: Said, make_id: Any = call_id) -> list[Json]:
    """The calls, each whole in one delta, as Mistral and Groq send them."""
    return [
        _piece(
            {
                "index": at,
                "id": call.id or make_id(),
                "type": "function",
                "function": {"name": call.name, "arguments": "".join(call.arguments)},
            }
        )
        for at, call in enumerate(said.calls)
    ]


def _piece(call: Json) -> Json:
    return {"tool_calls": [call]}


def finish(said: Said) -> str:
    """Calls end an answer with `tool_calls`, unless it was cut."""
    return "tool_calls" if said.calls and said.finish == "stop" else said.finish
