"""How the Messages API speaks, for the contract of models."""

from atto.models.anthropic import Anthropic
from atto.protocol.messages import Usage
from atto.testing.model_dialect import Opaque, ReadCall, Reading, ReadTurn, Refusal

from .anthropic_payloads import ask_for, begun, delta, ended, over, refusal, say, started, stream, think
from .chat_server import sse

_REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"}


class AnthropicDialect:
    usage = Usage(
        input_tokens=9, output_tokens=12, cache_read_tokens=4, cache_write_tokens=2, reasoning_tokens=5
    )
    trailing = 1  # message_stop: the reason has come before
    noise = b': ping\n\nevent: ping\ndata: {"type": "ping"}\n\ndata: {"type": "novel", "index": 7}\n\n'

    def make_model(self, base_url, *, api_key, account=""):
        return Anthropic("claude-sonnet-5-5", api_key=api_key, base_url=base_url, account=account)

    def answer(self, said):
        blocks = [lambda at: think(at, *said.reasoning)] if said.reasoning else []
        blocks += [lambda at: say(at, *said.text)] if said.text else []
        blocks += [lambda at, c=call: ask_for(at, c.id, c.name, *c.arguments) for call in said.calls]
        events = [event for at, block in enumerate(blocks) for event in block(at)]
        return stream(started(), *events, *ended(_REASONS[said.finish]))

    def opaque(self):
        cited = {"type": "char_location", "cited_text": "x", "novel": [1, None]}
        searched = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "x"}}
        found = {"type": "web_search_tool_result", "tool_use_id": "srv_1", "content": [{"novel": 0.5}]}
        events = [
            *think(0, "hm", signature="first"),
            begun(1, {"type": "redacted_thinking", "data": "secret"}),
            over(1),
            begun(2, {"type": "text", "text": "", "citations": []}),
            delta(2, "text_delta", text="One "),
            delta(2, "citations_delta", citation=cited),
            over(2),
            begun(3, {**searched, "input": {}}),
            delta(3, "input_json_delta", partial_json='{"query": "x"}'),
            over(3),
            begun(4, found),
            over(4),
            *ask_for(5, "call_a", "weather", '{"city": "Rome"}', caller={"type": "direct"}),
        ]
        natives = [
            {"type": "thinking", "thinking": "hm", "signature": "first"},
            {"type": "redacted_thinking", "data": "secret"},
            {"type": "text", "text": "One ", "citations": [cited]},
            searched,
            found,
            {
                "type": "tool_use",
                "id": "call_a",
                "name": "weather",
                "input": {"city": "Rome"},
                "caller": {"type": "direct"},
            },
        ]
        return Opaque(stream(started(), *events, *ended("tool_use")), natives)

    def error_in_stream(self, message):
        return sse(refusal("overloaded_error", message))

    def refusal(self, status, message):
        return Refusal({}, refusal("error", message))

    def reading(self, body):
        blocks = [block for message in body["messages"] for block in message["content"]]
        results = {
            block["tool_use_id"]: _told(block.get("content", ""))
            for block in blocks
            if block["type"] == "tool_result"
        }
        turns = [_turn(message, results) for message in body["messages"]]
        return Reading(
            [turn for turn in turns if turn is not None],
            body.get("system", ""),
            tuple(tool["name"] for tool in body.get("tools", ())),
        )


def _told(content):
    return content if isinstance(content, str) else "".join(block["text"] for block in content)


def _turn(message, results):
    blocks = [block for block in message["content"] if block["type"] != "tool_result"]
    if not blocks:
        return None
    return ReadTurn(
        message["role"],
        "".join(block["text"] for block in blocks if block["type"] == "text"),
        tuple(
            ReadCall(block["name"], block["input"], results.get(block["id"]))
            for block in blocks
            if block["type"] == "tool_use"
        ),
    )
