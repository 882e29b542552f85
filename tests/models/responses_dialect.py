"""How the Responses API speaks, for the contract of models."""

import json

from atto.models.openai_responses import OpenAIResponses
from atto.protocol.messages import Usage
from atto.testing.model_dialect import Opaque, ReadCall, Reading, ReadTurn, Refusal

from .chat_server import sse
from .responses_payloads import (
    ask_for,
    completed,
    created,
    done,
    function_call,
    incomplete,
    message,
    reasoning,
    say,
    think,
)

_ENDS = {"length": incomplete("max_output_tokens"), "content_filter": incomplete("content_filter")}


class ResponsesDialect:
    usage = Usage(
        input_tokens=9, output_tokens=12, cache_read_tokens=4, cache_write_tokens=2, reasoning_tokens=5
    )
    trailing = 0
    noise = b': ping\n\nevent: x\n\ndata: {"type": "response.unknown", "item": {"type": "x"}}\n\n'

    def make_model(self, base_url, *, api_key, account=""):
        return OpenAIResponses("gpt-5", api_key=api_key, base_url=f"{base_url}/v1", account=account)

    def answer(self, said):
        items = [lambda at: think(at, *said.reasoning)] if said.reasoning else []
        items += [lambda at: say(at, *said.text)] if said.text else []
        items += [lambda at, c=call: ask_for(at, c.id, c.name, *c.arguments) for call in said.calls]
        events = [event for at, item in enumerate(items) for event in item(at)]
        return _stream(*events, _ENDS.get(said.finish, completed()))

    def opaque(self):
        items = [
            reasoning("hm", encrypted="first", content=[]),
            message("One moment.", phase="commentary", unknown={"kept": [1, 2.5, None]}),
            {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "x"}},
            reasoning(encrypted="second", item_id="rs_2"),
            function_call("call_a", "weather", '{ "city":"Rome" }', namespace="n"),
            function_call("call_b", "weather"),
        ]
        return Opaque(_stream(*(done(at, item) for at, item in enumerate(items)), completed()), items)

    def error_in_stream(self, message):
        error = {"type": "server_error", "code": "server_error", "message": message, "param": None}
        return sse({"type": "error", "sequence_number": 9, "error": error})

    def refusal(self, status, message):
        return Refusal({}, {"error": {"message": message, "type": "error", "code": None}})

    def reading(self, body):
        items = body["input"]
        results = {
            item["call_id"]: item["output"] for item in items if item.get("type") == "function_call_output"
        }
        turns = []
        for item in items:
            _add(turns, item, results)
        return Reading(
            turns, body.get("instructions", ""), tuple(tool["name"] for tool in body.get("tools", ()))
        )


def _stream(*payloads):
    return [sse(payload) for payload in (created(), *payloads)]


def _add(turns, item, results):
    """One output item each: those of one answer follow one another."""
    match item.get("type", "message"):
        case "message":
            text = item["content"]
            text = text if isinstance(text, str) else "".join(part["text"] for part in text)
            turns.append(ReadTurn(item["role"], text))
        case "function_call":
            call = ReadCall(item["name"], json.loads(item["arguments"]), results.get(item["call_id"]))
            before = turns.pop() if turns[-1].role == "assistant" else ReadTurn("assistant")
            turns.append(ReadTurn("assistant", before.text, (*before.calls, call)))
