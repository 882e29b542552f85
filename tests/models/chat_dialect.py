"""How Chat Completions speak, for the contract of models."""

import json

from atto.models.openai import OpenAIChat
from atto.protocol.messages import Usage
from atto.testing.model_dialect import Opaque, ReadCall, Reading, ReadTurn, Refusal

from .chat_server import DONE, calls, delta, finish, piece, sse

_USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 12,
    "total_tokens": 21,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


class ChatDialect:
    usage = Usage(input_tokens=9, output_tokens=12, cache_read_tokens=4, reasoning_tokens=5)
    trailing = 2  # usage and [DONE]
    noise = b': ping\n\nevent: x\n\ndata: {"choices": []}\n\n'

    def make_model(self, base_url, *, api_key, account=""):
        return OpenAIChat("test-model", api_key=api_key, base_url=f"{base_url}/v1", account=account)

    def answer(self, said):
        events = [delta(role="assistant", content="")]
        events += [delta(reasoning_content=text) for text in said.reasoning]
        events += [delta(content=text) for text in said.text]
        for index, call in enumerate(said.calls):
            events.append(calls(piece(index, call.id, call.name, "")))
            events += [calls(piece(index, arguments=text)) for text in call.arguments]
        return _stream(*events, finish(said.finish))

    def opaque(self):
        extras = [{"google": {"thought_signature": name}} for name in ("one", "two")]
        made = [
            {**piece(index, f"call_{index}", "weather", "{}"), "extra_content": extra}
            for index, extra in enumerate(extras)
        ]
        return Opaque(_stream(calls(*made), finish("tool_calls")), extras)

    def error_in_stream(self, message):
        return sse({"error": {"message": message, "code": 503}})

    def refusal(self, status, message):
        return Refusal({}, {"error": {"message": message, "type": "error", "code": None}})

    def reading(self, body):
        messages = body["messages"]
        results = {
            message["tool_call_id"]: message["content"] for message in messages if message["role"] == "tool"
        }
        return Reading(
            [_turn(message, results) for message in messages if message["role"] in {"user", "assistant"}],
            "".join(message["content"] for message in messages if message["role"] == "system"),
            tuple(tool["function"]["name"] for tool in body.get("tools", ())),
        )


def _stream(*payloads):
    return [*(sse(payload) for payload in payloads), sse({"choices": [], "usage": _USAGE}), DONE]


def _turn(message, results):
    made = tuple(
        ReadCall(
            call["function"]["name"],
            json.loads(call["function"]["arguments"]),
            results.get(call["id"]),
        )
        for call in message.get("tool_calls") or ()
    )
    return ReadTurn(message["role"], message["content"] or "", made)
