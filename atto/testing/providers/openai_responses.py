"""What OpenAI refuses at `/v1/responses`."""

import re
import secrets
from collections.abc import Iterator
from typing import cast

from atto.testing.model_dialect import Said
from atto.testing.providers import openai_chat
from atto.testing.providers.chat_rules import IMAGES, NAME, field_at_most, is_object, list_at_most, too_long
from atto.testing.providers.rule import Ask, Json, Rule, Violation, is_sealed, seal, sse
from atto.testing.providers.schemas import outside_openai

error_body = openai_chat.error_body
reasons = openai_chat.reasons

_API = "https://platform.openai.com/docs/api-reference/responses/create"
_REASONING = "https://platform.openai.com/docs/guides/reasoning"
_PROVIDER = "openai"
_PREFIXES = {"function_call": "fc", "reasoning": "rs", "message": "msg", "web_search_call": "ws"}
_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_HERE = {"stop", "max_tokens", "max_completion_tokens", "messages", "response_format", "n", "seed"}
_MADE = {"function_call", "message", "web_search_call", "file_search_call", "code_interpreter_call"}


def _items(ask: Ask, kind: str = "") -> Iterator[tuple[int, Json]]:
    for at, item in enumerate(ask.items("input")):
        if not kind or item.get("type", "message") == kind:
            yield at, item


def _prefixes(ask: Ask) -> Iterator[Violation]:
    for at, item in _items(ask):
        prefix = _PREFIXES.get(item.get("type", "message"), "")
        if "id" in item and not str(item["id"]).startswith(prefix):
            yield Violation(
                f"Invalid 'input[{at}].id': '{item['id']}'. Expected an ID that begins with '{prefix}'.",
                f"input[{at}].id",
                "invalid_value",
            )


def _alphabet(ask: Ask) -> Iterator[Violation]:
    for at, item in _items(ask):
        if "id" in item and not _ID.fullmatch(str(item["id"])):
            yield Violation(
                f"Invalid 'input[{at}].id': '{item['id']}'. Expected an ID that contains letters, numbers, "
                "underscores, or dashes, but this value contained additional characters.",
                f"input[{at}].id",
                "invalid_value",
            )


def _call_ids(ask: Ask) -> Iterator[Violation]:
    for at, item in _items(ask):
        yield from too_long(f"input[{at}].call_id", item.get("call_id"), 64)
        if item.get("call_id") == "":
            yield Violation(
                f"Invalid 'input[{at}].call_id': empty string. Expected a string with minimum length 1, but "
                "got an empty string instead.",
                f"input[{at}].call_id",
                "empty_string",
            )


def _names(ask: Ask) -> Iterator[Violation]:
    named = [(f"input[{at}]", item) for at, item in _items(ask, "function_call")]
    functions = enumerate(ask.items("tools"))
    named += [(f"tools[{at}]", tool) for at, tool in functions if tool.get("type") == "function"]
    for where, item in named:
        if not NAME.fullmatch(str(item.get("name", ""))):
            yield Violation(
                f"Invalid '{where}.name': string does not match pattern. Expected a string that matches the "
                "pattern '^[a-zA-Z0-9_-]+$'.",
                f"{where}.name",
                "invalid_value",
            )


def _twice(ask: Ask) -> Iterator[Violation]:
    known: set[str] = set()
    for _, item in _items(ask):
        if item.get("id") in known:
            yield Violation(
                f"Duplicate item found with id {item['id']}. Remove duplicate items from your input and try "
                "again.",
                "input",
            )
        known.add(str(item.get("id", id(item))))


def _calls_answered(ask: Ask) -> Iterator[Violation]:
    told = [item.get("call_id") for _, item in _items(ask, "function_call_output")]
    for _, item in _items(ask, "function_call"):
        if item.get("call_id") not in told:
            yield Violation(f"No tool output found for function call {item.get('call_id')}.", "input")


def _outputs_asked_for(ask: Ask) -> Iterator[Violation]:
    asked: set[object] = set()
    for _, item in _items(ask):
        if item.get("type") == "function_call":
            asked.add(item.get("call_id"))
        if item.get("type") == "function_call_output" and item.get("call_id") not in asked:
            yield Violation(
                f"No tool call found for function call output with call_id {item.get('call_id')}.", "input"
            )


def _answered_once(ask: Ask) -> Iterator[Violation]:
    """Ids that come again in a later step are answered each: between two of them stands an output."""
    open_calls: set[object] = set()
    for _, item in _items(ask):
        call_id = item.get("call_id")
        if item.get("type") == "function_call" and call_id in open_calls:
            yield Violation(f"Duplicate function call with call_id {call_id}.", "input")
        if item.get("type") == "function_call":
            open_calls.add(call_id)
        elif item.get("type") == "function_call_output":
            open_calls.discard(call_id)


def _followed(ask: Ask) -> Iterator[Violation]:
    """A reasoning item stands before what the model made of it."""
    items = ask.items("input")
    for at, item in _items(ask, "reasoning"):
        nothing: Json = {}
        after = next((other for other in items[at + 1 :] if other.get("type") != "reasoning"), nothing)
        if after.get("type") not in _MADE and after.get("role") != "assistant":
            yield Violation(
                f"Item '{item.get('id')}' of type 'reasoning' was provided without its required following "
                "item.",
                "input",
            )


def _led_to(ask: Ask) -> Iterator[Violation]:
    """An item under its id stands behind the reasoning that led to it."""
    known: set[str] = set()
    for _, item in _items(ask):
        item_id = str(item.get("id", ""))
        known.add(item_id)
        kind, _, turn = item_id.partition("_")
        needed = f"rs_{turn.rpartition('_')[0]}_0"
        if kind in {"fc", "msg", "ws"} and _thought(turn) and needed not in known:
            yield Violation(
                f"Item '{item_id}' of type '{item.get('type')}' was provided without its required "
                f"'reasoning' item: '{needed}'.",
                "input",
            )


def _thought(turn: str) -> bool:
    return turn.rpartition("_")[0].endswith("r")


def _stored(ask: Ask) -> Iterator[Violation]:
    for _, item in _items(ask, "reasoning"):
        if ask.body.get("store") is False and not item.get("encrypted_content"):
            yield Violation(
                f"Item with id '{item.get('id')}' not found. Items are not persisted when `store` is set to "
                "false. Try again with `store` set to true, or remove this item from your input.",
                "input",
                status=404,
            )


def _sealed(ask: Ask) -> Iterator[Violation]:
    for _, item in _items(ask, "reasoning"):
        token = item.get("encrypted_content")
        if token and not is_sealed(token, _PROVIDER, ask, item.get("id")):
            yield Violation(
                f"The encrypted content for item {item.get('id')} could not be verified. Reason: Encrypted "
                "content could not be decrypted or parsed.",
                None,
                "invalid_encrypted_content",
            )


def _reasoning_to_plain(ask: Ask) -> Iterator[Violation]:
    for _ in _items(ask, "reasoning"):
        if not reasons(ask.model):
            yield Violation(
                "Reasoning input items can only be provided to a reasoning or computer use model. Remove "
                "reasoning items from your input and try again.",
                "input",
            )


def _include(ask: Ask) -> Iterator[Violation]:
    if "reasoning.encrypted_content" in ask.items("include") and not reasons(ask.model):
        yield Violation("Encrypted content is not supported with this model.", "include")


def _temperature(ask: Ask) -> Iterator[Violation]:
    if reasons(ask.model) and "temperature" in ask.body:
        yield Violation(
            "Unsupported parameter: 'temperature' is not supported with this model.", "temperature"
        )


def _effort(ask: Ask) -> Iterator[Violation]:
    if not reasons(ask.model) and ask.body.get("reasoning"):
        yield Violation(
            "Unsupported parameter: 'reasoning.effort' is not supported with this model.",
            "reasoning.effort",
            "unsupported_parameter",
        )


def _unknown(ask: Ask) -> Iterator[Violation]:
    for name in sorted(ask.body.keys() & _NOT_HERE):
        yield Violation(f"Unknown parameter: '{name}'.", name, "unknown_parameter")


def _least_tokens(ask: Ask) -> Iterator[Violation]:
    given = ask.body.get("max_output_tokens", 16)
    if given < 16:
        yield Violation(
            f"Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got "
            f"{given} instead.",
            "max_output_tokens",
            "integer_below_min_value",
        )


def _strict(ask: Ask) -> Iterator[Violation]:
    """`strict` is the default here, where Chat has it only if asked."""
    for at, tool in enumerate(ask.items("tools")):
        if tool.get("type") == "function" and tool.get("strict") is not False:
            for fault in outside_openai(cast("Json", tool.get("parameters") or {})):
                yield Violation(
                    f"Invalid schema for function '{tool.get('name')}': {fault}",
                    f"tools[{at}].parameters",
                    "invalid_function_parameters",
                )


def _roots(ask: Ask) -> Iterator[Violation]:
    for at, tool in enumerate(ask.items("tools")):
        kind = cast("Json", tool.get("parameters") or {}).get("type")
        if tool.get("type") == "function" and kind != "object":
            yield Violation(
                f"Invalid schema for function '{tool.get('name')}': schema must be a JSON Schema of 'type: "
                f'"object"\', got \'type: "{kind}"\'.',
                f"tools[{at}].parameters",
                "invalid_function_parameters",
            )


def _text_format(ask: Ask) -> Iterator[Violation]:
    given = cast("Json", cast("Json", ask.body.get("text") or {}).get("format") or {})
    if given.get("type") == "json_schema" and given.get("strict"):
        for fault in outside_openai(cast("Json", given.get("schema") or {})):
            yield Violation(
                f"Invalid schema for response_format '{given.get('name')}': {fault}",
                "text.format.schema",
                "invalid_json_schema",
            )


def _format_name(ask: Ask) -> Iterator[Violation]:
    given = cast("Json", cast("Json", ask.body.get("text") or {}).get("format") or {})
    if given.get("type") == "json_schema" and not NAME.fullmatch(str(given.get("name") or "")):
        yield Violation("Missing required parameter: 'text.format.name'.", "text.format.name")


def _arguments(ask: Ask) -> Iterator[Violation]:
    for at, item in _items(ask, "function_call"):
        arguments = item.get("arguments")
        if not isinstance(arguments, str) or not is_object(arguments):
            yield Violation(
                f"Invalid 'input[{at}].arguments': expected a JSON object.", f"input[{at}].arguments"
            )


def _contents(ask: Ask) -> Iterator[Violation]:
    """What was said is `output_text`, what is told `input_text`."""
    for at, item in _items(ask, "message"):
        said = item.get("role") == "assistant"
        taken = {"output_text", "refusal"} if said else {"input_text", "input_image", "input_file"}
        content = item.get("content")
        for number, part in enumerate(cast("list[Json]", content) if isinstance(content, list) else ()):
            if part.get("type") not in taken:
                supported = " and ".join(f"'{name}'" for name in sorted(taken))
                yield Violation(
                    f"Invalid value: '{part.get('type')}'. Supported values are: {supported}.",
                    f"input[{at}].content[{number}]",
                    "invalid_value",
                )


def _images(ask: Ask) -> Iterator[Violation]:
    for at, item in _items(ask):
        content = item.get("content") or item.get("output")
        for part in cast("list[Json]", content) if isinstance(content, list) else ():
            url = str(part.get("image_url", ""))
            if url.startswith("data:") and url[5:].partition(";")[0] not in IMAGES:
                yield Violation(
                    "The image data you provided does not represent a valid image. Please check your "
                    "input and try again with one of the supported image formats: ['image/jpeg', "
                    "'image/png', 'image/gif', 'image/webp'].",
                    f"input[{at}]",
                    "image_parse_error",
                )


RULES = (
    Rule("a field of Chat Completions", "documented", _API, _unknown),
    Rule(
        "prompt_cache_key of more than 64 characters",
        "seen",
        "https://github.com/earendil-works/pi/issues/4720",
        field_at_most("prompt_cache_key", 64),
    ),
    Rule("more than 128 tools", "inferred", _API, list_at_most("tools", 128)),
    Rule(
        "max_output_tokens below 16",
        "seen",
        "https://github.com/earendil-works/pi/issues/6265",
        _least_tokens,
    ),
    Rule("temperature of a reasoning model", "documented", _REASONING, _temperature),
    Rule("reasoning of a plain model", "documented", _REASONING, _effort),
    Rule(
        "encrypted reasoning of a plain model",
        "seen",
        "https://github.com/pydantic/pydantic-ai/issues/2865",
        _include,
    ),
    Rule(
        "an id without the prefix of its type",
        "seen",
        "https://github.com/openai/codex/issues/33176",
        _prefixes,
    ),
    Rule(
        "an id outside [a-zA-Z0-9_-]{1,64}",
        "seen",
        "https://github.com/langchain-ai/langchainjs/issues/11044",
        _alphabet,
    ),
    Rule(
        "a call_id that is empty, or of more than 64 characters",
        "seen",
        "https://github.com/openclaw/openclaw/pull/875",
        _call_ids,
    ),
    Rule("a name outside [a-zA-Z0-9_-]{1,64}", "documented", _API, _names),
    Rule("an item twice", "seen", "https://github.com/vercel/ai/issues/7883", _twice),
    Rule("arguments that are no JSON object", "inferred", _API, _arguments),
    Rule(
        "a part that its role does not say",
        "inferred",
        _API,
        _contents,
    ),
    Rule(
        "an image that is no png, jpeg, gif, webp",
        "documented",
        "https://platform.openai.com/docs/guides/images-vision",
        _images,
    ),
    Rule(
        "a call without its output",
        "seen",
        "https://github.com/symgraph/GhidrAssist/issues/78",
        _calls_answered,
    ),
    Rule(
        "an output without its call",
        "seen",
        "https://github.com/continuedev/continue/issues/10092",
        _outputs_asked_for,
    ),
    Rule("a call_id twice before its output", "inferred", _API, _answered_once),
    Rule(
        "reasoning to a plain model",
        "seen",
        "https://github.com/openai/openai-agents-python/issues/569",
        _reasoning_to_plain,
    ),
    Rule(
        "reasoning that is not stored, and not encrypted",
        "seen",
        "https://github.com/can1357/oh-my-pi/issues/41",
        _stored,
    ),
    Rule(
        "reasoning that another model or account encrypted",
        "seen",
        "https://github.com/continuedev/continue/issues/10643",
        _sealed,
    ),
    Rule(
        "reasoning without the item that follows it",
        "seen",
        "https://github.com/vercel/ai/issues/7099",
        _followed,
    ),
    Rule(
        "an item without the reasoning that led to it",
        "seen",
        "https://github.com/continuedev/continue/issues/10018",
        _led_to,
    ),
    Rule("a tool whose schema is no object", "documented", _API, _roots),
    Rule(
        "a strict tool outside the subset",
        "documented",
        "https://platform.openai.com/docs/guides/structured-outputs#supported-schemas",
        _strict,
    ),
    Rule(
        "a strict text.format outside the subset",
        "documented",
        "https://platform.openai.com/docs/guides/structured-outputs#supported-schemas",
        _text_format,
    ),
    Rule("a text.format without a proper name", "documented", _API, _format_name),
)


def answer(said: Said, ask: Ask) -> list[bytes]:
    """Output items: reasoning that is encrypted, text, calls; each as it is added, in pieces, and done."""
    thought = reasons(ask.model) and bool(said.reasoning)
    turn = secrets.token_hex(8) + ("r" if thought else "")
    output: list[Json] = []
    events: list[Json] = [_response("response.created", "in_progress", [])]
    if thought:
        _reason(said, ask, turn, output, events)
    if said.text:
        _say(said, turn, output, events)
    _call(said, turn, output, events)
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(said.finish)
    last = "response.incomplete" if reason else "response.completed"
    ended = _response(last, last.partition(".")[2], output)
    ended["response"]["incomplete_details"] = {"reason": reason} if reason else None
    events.append(ended)
    return sse(*({**event, "sequence_number": at} for at, event in enumerate(events)), named=True)


def _response(kind: str, status: str, output: list[Json]) -> Json:
    usage = {
        "input_tokens": 9,
        "output_tokens": 12,
        "total_tokens": 21,
        "output_tokens_details": {"reasoning_tokens": 5},
    }
    return {
        "type": kind,
        "response": {
            "id": "resp_1",
            "object": "response",
            "status": status,
            "output": output,
            "usage": usage,
        },
    }


def _event(kind: str, at: int, **fields: object) -> Json:
    return {"type": f"response.{kind}", "output_index": at, **fields}


def _reason(said: Said, ask: Ask, turn: str, output: list[Json], events: list[Json]) -> None:
    at, item_id = len(output), f"rs_{turn}_{len(output)}"
    item: Json = {"type": "reasoning", "id": item_id, "summary": []}
    events.append(_event("output_item.added", at, item=item))
    delta = "reasoning_summary_text.delta"
    events += [_event(delta, at, item_id=item_id, summary_index=0, delta=text) for text in said.reasoning]
    summary = [{"type": "summary_text", "text": "".join(said.reasoning)}]
    item = {**item, "summary": summary, "encrypted_content": seal(_PROVIDER, ask, item_id)}
    if "reasoning.encrypted_content" not in ask.items("include"):
        del item["encrypted_content"]
    _end(item, output, events)


def _say(said: Said, turn: str, output: list[Json], events: list[Json]) -> None:
    at, item_id = len(output), f"msg_{turn}_{len(output)}"
    item: Json = {
        "type": "message",
        "id": item_id,
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    events.append(_event("output_item.added", at, item=item))
    delta = "output_text.delta"
    events += [_event(delta, at, item_id=item_id, content_index=0, delta=text) for text in said.text]
    content: list[Json] = [{"type": "output_text", "text": "".join(said.text), "annotations": []}]
    _end({**item, "status": "completed", "content": content}, output, events)


def _call(said: Said, turn: str, output: list[Json], events: list[Json]) -> None:
    for call in said.calls:
        at, item_id = len(output), f"fc_{turn}_{len(output)}"
        call_id = call.id or f"call_{secrets.token_hex(12)}"
        item = {"type": "function_call", "id": item_id, "call_id": call_id, "name": call.name}
        events.append(
            _event("output_item.added", at, item={**item, "arguments": "", "status": "in_progress"})
        )
        delta = "function_call_arguments.delta"
        events += [_event(delta, at, item_id=item_id, delta=text) for text in call.arguments]
        cut = said.finish == "length" and call is said.calls[-1]
        status = "incomplete" if cut else "completed"
        _end({**item, "arguments": "".join(call.arguments), "status": status}, output, events)


def _end(item: Json, output: list[Json], events: list[Json]) -> None:
    events.append(_event("output_item.done", len(output), item=item))
    output.append(item)
