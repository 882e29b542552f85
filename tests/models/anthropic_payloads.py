"""Events as the Messages API sends them."""

from .chat_server import sse

USAGE = {
    "input_tokens": 3,
    "cache_read_input_tokens": 4,
    "cache_creation_input_tokens": 2,
    "output_tokens": 1,
}


def started(**usage):
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "usage": {**USAGE, **usage},
    }
    return {"type": "message_start", "message": message}


def begun(index, block):
    return {"type": "content_block_start", "index": index, "content_block": block}


def delta(index, kind, **fields):
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def over(index):
    return {"type": "content_block_stop", "index": index}


def say(index, *pieces, **extra):
    return [
        begun(index, {"type": "text", "text": "", **extra}),
        *(delta(index, "text_delta", text=piece) for piece in pieces),
        over(index),
    ]


def think(index, *pieces, signature="signed"):
    return [
        begun(index, {"type": "thinking", "thinking": "", "signature": ""}),
        *(delta(index, "thinking_delta", thinking=piece) for piece in pieces),
        delta(index, "signature_delta", signature=signature),
        over(index),
    ]


def ask_for(index, call_id, name, *pieces, **extra):
    return [
        begun(index, {"type": "tool_use", "id": call_id, "name": name, "input": {}, **extra}),
        *(delta(index, "input_json_delta", partial_json=piece) for piece in pieces),
        over(index),
    ]


def ended(reason="end_turn", **usage):
    counted = {"output_tokens": 12, "output_tokens_details": {"thinking_tokens": 5}, **usage}
    return [
        {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": counted},
        {"type": "message_stop"},
    ]


def stream(*events):
    """Each with the line that names it."""
    return [f"event: {event['type']}\n".encode() + sse(event) for event in events]


def refusal(kind, message="no", **extra):
    return {"type": "error", "error": {"type": kind, "message": message, **extra}, "request_id": "req_1"}
