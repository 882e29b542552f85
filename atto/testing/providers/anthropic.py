"""What Anthropic refuses at `/v1/messages`."""

import re
import secrets
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, cast

from atto.testing.model_dialect import Said
from atto.testing.providers.chat_rules import IMAGES
from atto.testing.providers.rule import Ask, Json, Rule, Violation, is_sealed, seal, sse
from atto.testing.providers.schemas import outside_anthropic, walk

_API = "https://platform.claude.com/docs/en/api/messages"
_THINKING = "https://platform.claude.com/docs/en/build-with-claude/extended-thinking"
_TOOLS = "https://platform.claude.com/docs/en/agents-and-tools/tool-use/implement-tool-use"
_OUTPUTS = "https://platform.claude.com/docs/en/build-with-claude/structured-outputs"
_PROVIDER = "anthropic"
_ID = re.compile(r"[a-zA-Z0-9_-]+", re.ASCII)
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}", re.ASCII)
_THOUGHT = {"thinking", "redacted_thinking"}
_ADAPTIVE = re.compile(r"claude-(?:opus-4-[78]|(?:opus|sonnet|haiku|fable|mythos)-5)")
_FIELDS = {
    "model",
    "messages",
    "max_tokens",
    "system",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "tools",
    "tool_choice",
    "thinking",
    "metadata",
    "service_tier",
    "container",
    "context_management",
    "mcp_servers",
    "output_config",
    "output_format",
    "cache_control",
    "inference_geo",
}
_CALLED = {"tool_use"}
_KEYS = {
    "text": {"type", "text", "citations", "cache_control"},
    "thinking": {"type", "thinking", "signature"},
    "redacted_thinking": {"type", "data"},
    "tool_use": {"type", "id", "name", "input", "caller", "cache_control"},
    "tool_result": {"type", "tool_use_id", "content", "is_error", "cache_control"},
    "image": {"type", "source", "cache_control"},
    "document": {"type", "source", "title", "context", "citations", "cache_control"},
}


def error_body(violation: Violation) -> Json:
    """An error as Anthropic words it."""
    error = {"type": "invalid_request_error", "message": violation.message}
    return {"type": "error", "error": error, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def thinking(ask: Ask) -> str:
    """`enabled`, `adaptive` or `disabled`. The newest models think of their own accord."""
    given = cast("Json", ask.body.get("thinking") or {}).get("type")
    return str(given or ("adaptive" if _always_thinks(ask.model) else "disabled"))


def _always_thinks(model: str) -> bool:
    return re.match(r"claude-(?:opus|sonnet|haiku|fable|mythos)-5", model) is not None


def _messages(ask: Ask) -> Iterator[tuple[int, str, list[Json]]]:
    """Place, role, blocks. Those of one role that follow one another are one: see `_turns`."""
    for at, message in enumerate(ask.items("messages")):
        content = message.get("content")
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        yield at, str(message.get("role")), cast("list[Json]", blocks or [])


def _blocks(ask: Ask, *kinds: str) -> Iterator[tuple[str, Json]]:
    for at, _, blocks in _messages(ask):
        for number, block in enumerate(blocks):
            if not kinds or block.get("type") in kinds:
                yield f"messages.{at}.content.{number}", block


def _turns(ask: Ask) -> list[tuple[str, list[Json]]]:
    """The API joins messages of one role that follow one another."""
    turns: list[tuple[str, list[Json]]] = []
    for _, role, blocks in _messages(ask):
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, list(blocks)))
    return turns


def _unknown(ask: Ask) -> Iterator[Violation]:
    for name in sorted(ask.body.keys() - _FIELDS):
        yield Violation(f"{name}: Extra inputs are not permitted")
    for where, block in _blocks(ask):
        kind = str(block.get("type"))
        for name in sorted(block.keys() - _KEYS.get(kind, set(block))):
            yield Violation(f"{where}.{kind}.{name}: Extra inputs are not permitted")


def _max_tokens(ask: Ask) -> Iterator[Violation]:
    if "max_tokens" not in ask.body:
        yield Violation("max_tokens: Field required")
    elif ask.body["max_tokens"] < 1:
        yield Violation("max_tokens: Input should be greater than or equal to 1")


def _first(ask: Ask) -> Iterator[Violation]:
    turns = _turns(ask)
    if not turns:
        yield Violation("messages: at least one message is required")
    elif turns[0][0] != "user":
        yield Violation('messages: first message must use the "user" role')


def _roles(ask: Ask) -> Iterator[Violation]:
    for at, role, _ in _messages(ask):
        if role not in {"user", "assistant"}:
            yield Violation(
                f'messages: Unexpected role "{role}". Allowed roles are "user" or "assistant" (at {at})'
            )


def _no_content(ask: Ask) -> Iterator[Violation]:
    for at, _, blocks in _messages(ask):
        if not blocks:
            yield Violation(
                f"messages.{at}: all messages must have non-empty content except for the optional final "
                "assistant message"
            )


def _empty_text(ask: Ask) -> Iterator[Violation]:
    for _, block in _blocks(ask, "text"):
        if not block.get("text"):
            yield Violation("messages: text content blocks must be non-empty")
    for _, _, blocks in _messages(ask):
        texts = [str(block.get("text")) for block in blocks if block.get("type") == "text"]
        if texts and not "".join(texts).strip():
            yield Violation("messages: text content blocks must contain non-whitespace text")


def _empty_system(ask: Ask) -> Iterator[Violation]:
    system = ask.body.get("system")
    if isinstance(system, str) and not system.strip():
        yield Violation("system: text content blocks must contain non-whitespace text")


def _prefill(ask: Ask) -> Iterator[Violation]:
    turns = _turns(ask)
    if turns and turns[-1][0] == "assistant" and (_ADAPTIVE.match(ask.model) or thinking(ask) != "disabled"):
        yield Violation(
            "This model does not support assistant message prefill. The conversation must end with a user "
            "message."
        )


def _trailing(ask: Ask) -> Iterator[Violation]:
    turns = _turns(ask)
    last = turns[-1][1][-1] if turns and turns[-1][0] == "assistant" and turns[-1][1] else {}
    if str(last.get("text", "")).endswith((" ", "\n", "\t")):
        yield Violation("messages: final assistant content cannot end with trailing whitespace")


def _ids(ask: Ask) -> Iterator[Violation]:
    for where, block in _blocks(ask, "tool_use", "tool_result"):
        name = "id" if block["type"] == "tool_use" else "tool_use_id"
        if not _ID.fullmatch(str(block.get(name))):
            yield Violation(f"{where}.{block['type']}.{name}: String should match pattern '^[a-zA-Z0-9_-]+$'")


def _unique(ask: Ask) -> Iterator[Violation]:
    known: set[Any] = set()
    for where, block in _blocks(ask, "tool_use"):
        if block.get("id") in known:
            yield Violation(f"{where}: `tool_use` ids must be unique")
        known.add(block.get("id"))


def _names(ask: Ask) -> Iterator[Violation]:
    for where, block in _blocks(ask, "tool_use"):
        if not 1 <= len(str(block.get("name", ""))) <= 200:
            yield Violation(f"{where}.tool_use.name: String should have at most 200 characters")
    for at, tool in enumerate(ask.items("tools")):
        if "input_schema" in tool and not _NAME.fullmatch(str(tool.get("name"))):
            yield Violation(f"tools.{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")


def _tools_twice(ask: Ask) -> Iterator[Violation]:
    named = [tool.get("name") for tool in ask.items("tools")]
    if len(set(named)) < len(named):
        yield Violation("tools: Tool names must be unique.")


def _inputs(ask: Ask) -> Iterator[Violation]:
    for where, block in _blocks(ask, "tool_use"):
        if not isinstance(block.get("input"), dict):
            yield Violation(f"{where}.tool_use.input: Input should be a valid dictionary")


def _ids_of(blocks: list[Json], kind: str, name: str) -> list[Any]:
    return [block.get(name) for block in blocks if block.get("type") == kind]


def _answered(ask: Ask) -> Iterator[Violation]:
    turns = [*_turns(ask), ("user", cast("list[Json]", []))]
    for at, ((_, blocks), (_, after)) in enumerate(pairwise(turns)):
        told = _ids_of(after, "tool_result", "tool_use_id")
        missing = [str(call_id) for call_id in _ids_of(blocks, "tool_use", "id") if call_id not in told]
        if missing:
            yield Violation(
                f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block "
                "in the next message."
            )


def _asked_for(ask: Ask) -> Iterator[Violation]:
    turns = [("assistant", cast("list[Json]", [])), *_turns(ask)]
    for at, ((_, before), (_, blocks)) in enumerate(pairwise(turns)):
        asked = _ids_of(before, "tool_use", "id")
        for number, call_id in enumerate(_ids_of(blocks, "tool_result", "tool_use_id")):
            if call_id not in asked:
                yield Violation(
                    f"messages.{at}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks"
                    f": {call_id}. Each `tool_result` block must have a corresponding `tool_use` block in "
                    "the previous message."
                )


def _answered_once(ask: Ask) -> Iterator[Violation]:
    for at, (_, blocks) in enumerate(_turns(ask)):
        told = _ids_of(blocks, "tool_result", "tool_use_id")
        if len(set(told)) < len(told):
            yield Violation(
                f"messages.{at}.content: each tool_use must have a single result. Found multiple "
                f"`tool_result` blocks with id: {next(one for one in told if told.count(one) > 1)}"
            )


def _results_first(ask: Ask) -> Iterator[Violation]:
    for at, (_, blocks) in enumerate(_turns(ask)):
        kinds = [block.get("type") == "tool_result" for block in blocks]
        if kinds != sorted(kinds, reverse=True):
            yield Violation(
                f"messages.{at}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                "`tool_result` blocks must come first in the content."
            )


def _failed_results(ask: Ask) -> Iterator[Violation]:
    for where, block in _blocks(ask, "tool_result"):
        content = block.get("content")
        listed = cast("list[Json]", content) if isinstance(content, list) else []
        if block.get("is_error") and any(part.get("type") != "text" for part in listed):
            yield Violation(f'{where}.tool_result: all content must be type "text" if `is_error` is true')


def _starts_with_thinking(ask: Ask) -> Iterator[Violation]:
    """With a budget of thinking, the answer that a tool loop goes on from begins with thinking."""
    turns = _turns(ask)
    if (
        thinking(ask) != "enabled"
        or len(turns) < 2
        or not _ids_of(turns[-1][1], "tool_result", "tool_use_id")
    ):
        return
    first = turns[-2][1][0].get("type") if turns[-2][1] else None
    if first not in _THOUGHT:
        yield Violation(
            f"messages.{len(turns) - 2}.content.0.type: Expected `thinking` or `redacted_thinking`, but "
            f"found `{first}`. When `thinking` is enabled, a final `assistant` message must start with a "
            "thinking block (preceeding the lastmost set of `tool_use` and `tool_result` blocks). "
            "We recommend you include thinking blocks from previous turns. To avoid this requirement, "
            "disable `thinking`. Please consult our documentation at "
            "https://docs.claude.com/en/docs/build-with-claude/extended-thinking"
        )


def _signatures(ask: Ask) -> Iterator[Violation]:
    for where, block in _blocks(ask, "thinking"):
        if "signature" not in block:
            yield Violation(f"{where}.thinking.signature: Field required")
        elif not is_sealed(block["signature"], _PROVIDER, ask, block.get("thinking")):
            yield Violation(f"{where}: Invalid `signature` in `thinking` block")
    for where, block in _blocks(ask, "redacted_thinking"):
        if not is_sealed(block.get("data"), _PROVIDER, ask, "redacted"):
            yield Violation(f"{where}: Invalid `data` in `redacted_thinking` block")


def _temperature(ask: Ask) -> Iterator[Violation]:
    if thinking(ask) != "disabled" and ask.body.get("temperature", 1) != 1:
        yield Violation("`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.")
    if not 0 <= ask.body.get("temperature", 1) <= 1:
        yield Violation("temperature: range: 0..1")


def _sampling(ask: Ask) -> Iterator[Violation]:
    for name in ("temperature", "top_p", "top_k"):
        if _ADAPTIVE.match(ask.model) and name in ask.body:
            yield Violation(f"`{name}` is deprecated for this model.")


def _enabled(ask: Ask) -> Iterator[Violation]:
    if _ADAPTIVE.match(ask.model) and thinking(ask) == "enabled":
        yield Violation(
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" and '
            '"output_config.effort" to control thinking behavior.'
        )


def _forced(ask: Ask) -> Iterator[Violation]:
    choice = cast("Json", ask.body.get("tool_choice") or {}).get("type")
    if thinking(ask) != "disabled" and choice in {"any", "tool"}:
        yield Violation("Thinking may not be enabled when tool_choice forces tool use.")


def _budget(ask: Ask) -> Iterator[Violation]:
    budget = cast("Json", ask.body.get("thinking") or {}).get("budget_tokens")
    if thinking(ask) == "enabled" and (budget is None or budget < 1024):
        yield Violation("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    elif budget is not None and budget >= ask.body.get("max_tokens", 0):
        yield Violation("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _breakpoints(ask: Ask) -> Iterator[Violation]:
    marked: list[Json] = [block for _, block in _blocks(ask)]
    marked += cast("list[Json]", [*ask.items("system"), *ask.items("tools")])
    found = sum(block.get("cache_control") is not None for block in marked)
    if found > 4:
        yield Violation(f"A maximum of 4 blocks with cache_control may be provided. Found {found}.")


def _images(ask: Ask) -> Iterator[Violation]:
    found = [(f"{where}.image", block) for where, block in _blocks(ask, "image")]
    for where, block in _blocks(ask, "tool_result"):
        content = block.get("content")
        listed = cast("list[Json]", content) if isinstance(content, list) else []
        found += [(f"{where}.tool_result.image", part) for part in listed if part.get("type") == "image"]
    for where, image in found:
        source = cast("Json", image.get("source") or {})
        if source.get("type") == "base64" and source.get("media_type") not in IMAGES:
            yield Violation(
                f"{where}.source.base64.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' "
                "or 'image/webp'"
            )


def _stops(ask: Ask) -> Iterator[Violation]:
    for at, text in enumerate(ask.items("stop_sequences")):
        if not str(text).strip():
            yield Violation(f"stop_sequences.{at}: each stop sequence must contain non-whitespace")


def _roots(ask: Ask) -> Iterator[Violation]:
    for at, tool in enumerate(ask.items("tools")):
        schema = cast("Json", tool.get("input_schema") or {})
        if "input_schema" in tool and schema.get("type") != "object":
            yield Violation(f"tools.{at}.custom.input_schema.type: Field required")
        if any(name in schema for name in ("oneOf", "allOf", "anyOf")):
            yield Violation(
                f"tools.{at}.custom.input_schema: input_schema does not support oneOf, allOf, or anyOf at "
                "the top level"
            )


def _strict(ask: Ask) -> Iterator[Violation]:
    for at, tool in enumerate(ask.items("tools")):
        if tool.get("strict"):
            for fault in outside_anthropic(cast("Json", tool.get("input_schema") or {})):
                yield Violation(f"tools.{at}.custom: {fault}")


def _output(ask: Ask) -> Iterator[Violation]:
    given = cast("Json", cast("Json", ask.body.get("output_config") or {}).get("format") or {})
    if "schema" in given:
        for fault in outside_anthropic(cast("Json", given["schema"])):
            yield Violation(f"output_config.format.schema: {fault}")


def _property_names(ask: Ask) -> Iterator[Violation]:
    for at, tool in enumerate(ask.items("tools")):
        for _, found in walk(tool.get("input_schema")):
            for name in cast("Json", found.get("properties") or {}):
                if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,64}", name):
                    yield Violation(
                        f"tools.{at}.custom.input_schema.properties: Property keys should match pattern "
                        "'^[a-zA-Z0-9_.-]{1,64}$'"
                    )


_OPENCODE = "https://github.com/anomalyco/opencode/issues/1279"

RULES = (
    Rule("a field that it does not know", "documented", _API, _unknown),
    Rule("no max_tokens", "documented", _API, _max_tokens),
    Rule("a role that it does not know", "documented", _API, _roles),
    Rule("a history that the user does not begin", "documented", _API, _first),
    Rule(
        "a message without content",
        "seen",
        "https://github.com/anthropics/claude-code/issues/3196",
        _no_content,
    ),
    Rule(
        "text that is empty or white space",
        "seen",
        "https://github.com/LibreChat-AI/agents/pull/124",
        _empty_text,
    ),
    Rule(
        "a system prompt of white space",
        "seen",
        "https://github.com/anomalyco/opencode/issues/35101",
        _empty_system,
    ),
    Rule(
        "a history that the assistant ends",
        "documented",
        "https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-6",
        _prefill,
    ),
    Rule(
        "a last answer that ends with white space",
        "seen",
        "https://github.com/tailcallhq/forgecode/issues/1872",
        _trailing,
    ),
    Rule("an id outside [a-zA-Z0-9_-]+", "seen", "https://github.com/HKUDS/nanobot/pull/4356", _ids),
    Rule("an id twice in the history", "seen", _OPENCODE, _unique),
    Rule("a name out of bounds", "documented", _TOOLS, _names),
    Rule("a tool twice", "seen", "https://github.com/tailcallhq/forgecode/issues/892", _tools_twice),
    Rule("an input that is no object", "seen", "https://github.com/prism-php/prism/issues/659", _inputs),
    Rule("a call without its result behind it", "documented", _TOOLS, _answered),
    Rule("a result without its call before it", "documented", _TOOLS, _asked_for),
    Rule("a result twice", "inferred", _TOOLS, _answered_once),
    Rule("a result behind other content", "documented", _TOOLS, _results_first),
    Rule("a failed result that is no text", "inferred", _TOOLS, _failed_results),
    Rule(
        "thinking that another model or account signed, or that was changed",
        "seen",
        "https://github.com/vybestack/llxprt-code/issues/2335",
        _signatures,
    ),
    Rule("a tool loop without the thinking that began it", "documented", _THINKING, _starts_with_thinking),
    Rule("temperature of a model that thinks", "documented", _THINKING, _temperature),
    Rule(
        "temperature, top_p or top_k of a model without",
        "documented",
        "https://platform.claude.com/docs/en/about-claude/models/whats-new-claude-4-7",
        _sampling,
    ),
    Rule(
        "a budget of thinking where it is adaptive",
        "seen",
        "https://github.com/OpenHands/software-agent-sdk/pull/3427",
        _enabled,
    ),
    Rule("a forced tool choice of a model that thinks", "documented", _THINKING, _forced),
    Rule("a budget of thinking out of bounds", "documented", _THINKING, _budget),
    Rule(
        "more than 4 cache breakpoints",
        "documented",
        "https://platform.claude.com/docs/en/build-with-claude/prompt-caching",
        _breakpoints,
    ),
    Rule(
        "an image that is no png, jpeg, gif, webp",
        "documented",
        "https://platform.claude.com/docs/en/build-with-claude/vision",
        _images,
    ),
    Rule(
        "a stop sequence of white space",
        "seen",
        "https://github.com/BerriAI/litellm/issues/3286",
        _stops,
    ),
    Rule("a tool whose schema is no object", "documented", _TOOLS, _roots),
    Rule(
        "a property outside [a-zA-Z0-9_.-]{1,64}",
        "seen",
        "https://github.com/n8n-io/n8n/issues/30590",
        _property_names,
    ),
    Rule("a strict tool outside the subset", "documented", _OUTPUTS, _strict),
    Rule("an output schema outside the subset", "documented", _OUTPUTS, _output),
)


def answer(said: Said, ask: Ask) -> list[bytes]:
    """Content blocks: thinking with its signature, text, calls."""
    events: list[Json] = [
        {
            "type": "message_start",
            "message": {
                "id": "msg_01",
                "type": "message",
                "role": "assistant",
                "content": [],
                "model": ask.model,
                "usage": {"input_tokens": 9, "output_tokens": 1},
            },
        }
    ]
    at = 0
    if said.reasoning and thinking(ask) != "disabled":
        signature = seal(_PROVIDER, ask, "".join(said.reasoning))
        deltas = [{"type": "thinking_delta", "thinking": text} for text in said.reasoning]
        deltas.append({"type": "signature_delta", "signature": signature})
        events += _block(at, {"type": "thinking", "thinking": "", "signature": ""}, deltas)
        at += 1
    if said.text:
        deltas = [{"type": "text_delta", "text": text} for text in said.text]
        events += _block(at, {"type": "text", "text": ""}, deltas)
        at += 1
    for number, call in enumerate(said.calls):
        begun = {"type": "tool_use", "id": call.id or f"toolu_{secrets.token_hex(12)}", "name": call.name}
        deltas = [{"type": "input_json_delta", "partial_json": text} for text in call.arguments]
        events += _block(at + number, {**begun, "input": {}}, deltas)
    reason = "tool_use" if said.calls and said.finish == "stop" else _REASONS[said.finish]
    events.append({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 12}})
    events.append({"type": "message_stop"})
    return sse(*events, named=True)


_REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"}


def _block(at: int, begun: Json, deltas: list[Json]) -> list[Json]:
    return [
        {"type": "content_block_start", "index": at, "content_block": begun},
        *({"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": at},
    ]
