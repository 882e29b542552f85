"""Events as the Responses API sends them."""

from .chat_server import sse

USAGE = {
    "input_tokens": 9,
    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 21,
}


def response(status="in_progress", **fields):
    return {"id": "resp_1", "object": "response", "status": status, "model": "gpt-5", "output": [], **fields}


def created():
    return {"type": "response.created", "response": response()}


def completed(**fields):
    return {"type": "response.completed", "response": response("completed", usage=USAGE, **fields)}


def incomplete(reason):
    whole = response("incomplete", usage=USAGE, incomplete_details={"reason": reason})
    return {"type": "response.incomplete", "response": whole}


def failed(code, message="no"):
    whole = response("failed", error={"code": code, "message": message})
    return {"type": "response.failed", "response": whole}


def added(index, item):
    return {"type": "response.output_item.added", "output_index": index, "item": item}


def done(index, item):
    return {"type": "response.output_item.done", "output_index": index, "item": item}


def delta(kind, index, text, **extra):
    return {"type": f"response.{kind}.delta", "output_index": index, "delta": text, **extra}


def message(*texts, item_id="msg_1", **extra):
    content = [{"type": "output_text", "text": "".join(texts), "annotations": [], "logprobs": []}]
    return {
        "id": item_id,
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": content,
        **extra,
    }


def reasoning(*texts, encrypted="gAAAA", item_id="rs_1", **extra):
    summary = [{"type": "summary_text", "text": text} for text in texts]
    return {
        "id": item_id,
        "type": "reasoning",
        "summary": summary,
        "encrypted_content": encrypted,
        **extra,
    }


def function_call(call_id, name, arguments="{}", **extra):
    return {
        "id": f"fc_{call_id}",
        "type": "function_call",
        "status": "completed",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        **extra,
    }


def say(index, *texts, **extra):
    """The events of a message."""
    part = {"type": "output_text", "text": "", "annotations": []}
    return [
        added(index, message(status="in_progress", content=[])),
        {"type": "response.content_part.added", "output_index": index, "content_index": 0, "part": part},
        *(delta("output_text", index, text, content_index=0) for text in texts),
        {"type": "response.output_text.done", "output_index": index, "text": "".join(texts)},
        done(index, message(*texts, **extra)),
    ]


def think(index, *texts, **extra):
    """The events of a reasoning item with a summary of one part."""
    place = {"output_index": index, "summary_index": 0}
    return [
        added(index, reasoning(encrypted="gA")),
        {"type": "response.reasoning_summary_part.added", **place, "part": {"type": "summary_text"}},
        *(delta("reasoning_summary_text", index, text, summary_index=0) for text in texts),
        {"type": "response.reasoning_summary_text.done", **place, "text": "".join(texts)},
        done(index, reasoning("".join(texts), **extra)),
    ]


def ask_for(index, call_id, name, *arguments):
    """The events of a function call."""
    return [
        added(index, function_call(call_id, name, "", status="in_progress")),
        *(delta("function_call_arguments", index, text) for text in arguments),
        {
            "type": "response.function_call_arguments.done",
            "output_index": index,
            "arguments": "".join(arguments),
        },
        done(index, function_call(call_id, name, "".join(arguments))),
    ]


def answer(text: str) -> bytes:
    return sse(created(), *say(0, *text.split(" ")), completed())
