"""The server of the tests, and how Chat Completions speak."""

import json
from typing import Any

from atto.testing.model_server import CUT, ModelServer, Reply, Request

__all__ = [
    "CUT",
    "DONE",
    "ChatServer",
    "Reply",
    "Request",
    "answer",
    "calls",
    "delta",
    "finish",
    "piece",
    "sse",
]

DONE = b"data: [DONE]\n\n"


class ChatServer(ModelServer):
    """Its `url` ends with the API's version."""

    async def __aenter__(self):
        await super().__aenter__()
        self.url += "/v1"
        return self


def sse(*payloads) -> bytes:
    return b"".join(
        b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n" for payload in payloads
    )


def delta(**fields) -> dict[str, Any]:
    choice = {"index": 0, "delta": fields, "finish_reason": None}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}


def finish(reason="stop", **extra) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}], **extra}


def calls(*pieces) -> dict[str, Any]:
    return delta(tool_calls=list(pieces))


def piece(index=None, call_id=None, name=None, arguments=None) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    fields = {
        "index": index,
        "id": call_id,
        "type": "function",
        "function": {key: value for key, value in function.items() if value is not None},
    }
    return {key: value for key, value in fields.items() if value is not None}


def answer(text: str) -> bytes:
    return (
        sse(delta(role="assistant", content=""), *(delta(content=word) for word in text.split(" ")), finish())
        + DONE
    )
