"""For each provider a request that it takes, and for each of its rules one that breaks it.

A sample changes fields of the request that is taken; `...` takes a field away.
"""

from base64 import b64encode

from atto.testing.providers.rule import Ask, seal

OPEN = {"type": "object", "properties": {"item": {"type": "string", "default": "x"}}}
CLOSED = {
    "type": "object",
    "properties": {"item": {"type": "string"}},
    "required": ["item"],
    "additionalProperties": False,
}
BMP = f"data:image/bmp;base64,{b64encode(b'x').decode()}"
LONG = "x" * 65
USER = {"role": "user", "content": "hi"}


def signed(provider, content, model):
    return seal(provider, Ask({}, model, "one"), content)


# Chat Completions


def called(*ids, name="stock", arguments="{}", **fields):
    function = {"name": name, "arguments": arguments}
    calls = [{"id": call_id, "type": "function", "function": function} for call_id in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls, **fields}


def told(call_id, content="3"):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def tool(name="stock", parameters=CLOSED, **fields):
    return {"type": "function", "function": {"name": name, "parameters": parameters, **fields}}


def answer_format(schema=CLOSED, name="answer"):
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}


PICTURE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": BMP}}]}
SHOWN = {"type": "image_url", "image_url": {"url": "https://x/y.png"}}
LOOP = [USER, called("a"), told("a")]

NAMES = {"tools": [tool("wea ther")]}
UNANSWERED = {"messages": [USER, called("a"), USER]}
UNASKED = {"messages": [USER, told("a")]}
PLAIN = {"model": "gpt-4.1", "messages": LOOP, "tools": [tool()], "stop": ["x"], "temperature": 0.5}
REASONING = {"model": "gpt-5.2", "stop": ..., "temperature": ...}

CHAT = {
    "messages is empty": {"messages": []},
    "tools is empty": {"tools": []},
    "more than 128 tools": {"tools": [tool(f"t{at}") for at in range(129)]},
    "prompt_cache_key of more than 64 characters": {"prompt_cache_key": LONG},
    "more than 4 stop sequences": {"stop": list("abcde")},
    "a name outside [a-zA-Z0-9_-]{1,64}": NAMES,
    "a description of more than 1024 characters": {"tools": [tool(description="x" * 1025)]},
    "an id of more than 40 characters": {"messages": [USER, called("x" * 41), told("x" * 41)]},
    "a call without its result behind it": UNANSWERED,
    "a result without its call before it": UNASKED,
    "an id twice in one message": {"messages": [USER, called("a", "a"), told("a"), told("a")]},
    "arguments that are no JSON object": {"messages": [USER, called("a", arguments="{oops"), told("a")]},
    "an answer without content or calls": {"messages": [USER, {"role": "assistant", "content": None}, USER]},
    "an image that is no png, jpeg, gif, webp": {"messages": [PICTURE]},
    "a result that is no text": {"messages": [*LOOP[:2], told("a", [SHOWN])]},
    "max_tokens of a reasoning model": {**REASONING, "max_tokens": 9},
    "temperature of a reasoning model": {**REASONING, "temperature": 0.5},
    "stop of a reasoning model": {**REASONING, "stop": ["x"]},
    "a strict tool outside the subset": {"tools": [tool(parameters=OPEN, strict=True)]},
    "a strict response_format outside the subset": {"response_format": answer_format(OPEN)},
    "JSON without the word in the prompt": {"response_format": {"type": "json_object"}},
    "a response_format without a proper name": {"response_format": answer_format(name="an answer")},
}

THOUGHT = called("a", reasoning_content="hm")
DEEPSEEK_TAKEN = {"model": "deepseek-v4-pro", "messages": [USER, THOUGHT, told("a")], "tools": [tool()]}
DEEPSEEK = {
    "a call without the reasoning that led to it": {"messages": LOOP},
    "an answer without its reasoning": {"messages": [USER, {"role": "assistant", "content": "hello"}, USER]},
    "reasoning of others than the assistant": {"messages": [{**USER, "reasoning_content": "hm"}]},
    "content that is no text": {"messages": [PICTURE]},
    "a forced tool choice of a model that thinks": {"tool_choice": "required"},
    "a response_format of json_schema": {"response_format": answer_format()},
    "JSON without the word in the prompt": {"response_format": {"type": "json_object"}},
    "an answer without content or calls": {
        "messages": [USER, {"role": "assistant", "content": "", "reasoning_content": "hm"}, USER]
    },
    "more than 16 stop sequences": {"stop": [str(at) for at in range(17)]},
    "more than 128 tools": {"tools": [tool(f"t{at}") for at in range(129)]},
    "a name outside [a-zA-Z0-9_-]{1,64}": NAMES,
    "a call without its result behind it": {"messages": [USER, THOUGHT, USER]},
    "a result without its call before it": UNASKED,
}

CLAUDE = "anthropic/claude-sonnet-4.5"


def detail(text="hm", by=CLAUDE):
    return {"type": "reasoning.text", "text": text, "signature": signed("openrouter", "hm", by)}


def with_details(*details, call_id="a", **fields):
    return {"messages": [USER, called(call_id, reasoning_details=[*details]), told(call_id)], **fields}


OPENROUTER_TAKEN = {"model": CLAUDE, "tools": [tool()], **with_details(detail())}
OPENROUTER = {
    "a strict schema outside the subset of who serves the model": {"response_format": answer_format(OPEN)},
    "reasoning_details that another model or nobody signed": with_details(detail(by="openai/gpt-5")),
    "a call of Gemini's without its reasoning_details": with_details(
        call_id="tool_a", model="google/gemini-3-pro"
    ),
    "reasoning_details twice, or not where they were": with_details(detail(), detail()),
    "more than 4 stop sequences": {"stop": list("abcde")},
    "a name outside [a-zA-Z0-9_-]{1,64}": NAMES,
    "a call without its result behind it": UNANSWERED,
    "a result without its call before it": UNASKED,
}

GROQ_TAKEN = {
    "model": "qwen/qwen3-32b",
    "messages": [USER, called("a", reasoning="hm"), told("a")],
    "tools": [tool()],
}
GROQ = {
    "a response_format beside tools": {"response_format": {"type": "json_object"}},
    "a schema for a model that is not held to it": {"tools": ..., "response_format": answer_format()},
    "a strict schema outside the subset": {
        "tools": ...,
        "model": "openai/gpt-oss-120b",
        "response_format": answer_format(OPEN),
    },
    "a field of a message that it does not know": {"messages": [USER, THOUGHT, told("a")]},
    "a field that it does not know": {"logit_bias": {}},
    "more than one choice": {"n": 2},
    "reasoning to a model without": {"model": "llama-4-scout"},
    "include_reasoning beside reasoning_format": {"include_reasoning": True, "reasoning_format": "parsed"},
    "more than 4 stop sequences": {"stop": list("abcde")},
    "more than 128 tools": {"tools": [tool(f"t{at}") for at in range(129)]},
    "a name outside [a-zA-Z0-9_-]{1,64}": NAMES,
    "a result that is no text": {"messages": [*LOOP[:2], told("a", PICTURE["content"])]},
    "a call without its result behind it": UNANSWERED,
    "a result without its call before it": UNASKED,
}

NINE = "abcdefgh1"
THINKS = {
    "role": "assistant",
    "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}],
}
MISTRAL_TAKEN = {
    "model": "mistral-large",
    "messages": [USER, called(NINE), told(NINE)],
    "tools": [tool()],
    "stream_options": {"include_usage": True},
}
MISTRAL = {
    "a field that it does not know": {"messages": [USER, {**THOUGHT, **called(NINE)}, told(NINE)]},
    "an id that is not nine letters and digits": {"messages": [USER, called("call_1"), told("call_1")]},
    "a role behind one that it may not follow": {"messages": [USER, called(NINE), told(NINE), USER]},
    "a history that the assistant ends": {"messages": [USER, {"role": "assistant", "content": "hello"}]},
    "as many results as there are not calls": {
        "messages": [USER, called(NINE, "abcdefgh2"), told(NINE)],
    },
    "an answer without content or calls": {"messages": [USER, {"role": "assistant", "content": ""}, USER]},
    "a name outside [a-zA-Z0-9_-]{1,64}": NAMES,
    "thinking to a model without": {"messages": [USER, THINKS, USER]},
}

# Responses

ASKED = {"type": "function_call", "call_id": "a", "name": "stock", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "a", "output": "3"}
MADE = "rs_1r_0"


def rs(by="gpt-5.2", **fields):
    sealed = signed("openai", MADE, by)
    return {"type": "reasoning", "id": MADE, "summary": [], "encrypted_content": sealed, **fields}


def fn(parameters=CLOSED, **fields):
    return {"type": "function", "name": "stock", "parameters": parameters, "strict": True, **fields}


def items(*given, **fields):
    return {"input": [USER, *given], **fields}


def text_format(schema=CLOSED, **fields):
    given = {"type": "json_schema", "name": "answer", "schema": schema, "strict": True, **fields}
    return {"text": {"format": given}}


LED_TO = {**ASKED, "id": "fc_1r_1"}
RESPONSES_TAKEN = {
    "model": "gpt-5.2",
    "store": False,
    "include": ["reasoning.encrypted_content"],
    "tools": [fn()],
    "prompt_cache_key": "k",
    **items(rs(), LED_TO, OUTPUT),
}
ON_PLAIN = {"model": "gpt-4.1", "include": ...}
RESPONSES = {
    "a field of Chat Completions": {"stop": ["x"]},
    "prompt_cache_key of more than 64 characters": {"prompt_cache_key": LONG},
    "more than 128 tools": {"tools": [fn(name=f"t{at}") for at in range(129)]},
    "max_output_tokens below 16": {"max_output_tokens": 15},
    "temperature of a reasoning model": {"temperature": 0.5},
    "reasoning of a plain model": {**ON_PLAIN, **items(), "reasoning": {"effort": "low"}},
    "encrypted reasoning of a plain model": {"model": "gpt-4.1", **items()},
    "an id without the prefix of its type": items({**ASKED, "id": "call_1"}, OUTPUT),
    "an id outside [a-zA-Z0-9_-]{1,64}": items({**ASKED, "id": "fc:1"}, OUTPUT),
    "a call_id that is empty, or of more than 64 characters": items(
        {**ASKED, "call_id": LONG}, {**OUTPUT, "call_id": LONG}
    ),
    "a name outside [a-zA-Z0-9_-]{1,64}": items({**ASKED, "name": "wea ther"}, OUTPUT),
    "an item twice": items(rs(), rs(), LED_TO, OUTPUT),
    "arguments that are no JSON object": items({**ASKED, "arguments": "{oops"}, OUTPUT),
    "a part that its role does not say": items(
        {"role": "assistant", "content": [{"type": "input_text", "text": "hello"}]}
    ),
    "an image that is no png, jpeg, gif, webp": items(
        {"role": "user", "content": [{"type": "input_image", "image_url": BMP}]}
    ),
    "a call without its output": items(ASKED),
    "an output without its call": items(OUTPUT),
    "a call_id twice before its output": items(ASKED, ASKED, OUTPUT),
    "reasoning to a plain model": {**ON_PLAIN},
    "reasoning that is not stored, and not encrypted": items(rs(encrypted_content=None), LED_TO, OUTPUT),
    "reasoning that another model or account encrypted": items(rs("gpt-5-mini"), LED_TO, OUTPUT),
    "reasoning without the item that follows it": items(rs()),
    "an item without the reasoning that led to it": items(LED_TO, OUTPUT),
    "a tool whose schema is no object": {"tools": [fn({"type": "string"}, strict=False)]},
    "a strict tool outside the subset": {"tools": [fn(OPEN)]},
    "a strict text.format outside the subset": text_format(OPEN),
    "a text.format without a proper name": text_format(name=""),
}

# Messages


def use(call_id="a", **fields):
    return {"type": "tool_use", "id": call_id, "name": "stock", "input": {}, **fields}


def result(call_id="a", **fields):
    return {"type": "tool_result", "tool_use_id": call_id, "content": "3", **fields}


def thinking(by="claude-opus-4-5", **fields):
    sealed = signed("anthropic", "hm", by)
    return {"type": "thinking", "thinking": "hm", "signature": sealed, **fields}


def text(said):
    return {"type": "text", "text": said}


def turns(*contents, **fields):
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": content} for at, content in enumerate(contents)]
    return {"messages": messages, **fields}


def schema_tool(schema=CLOSED, **fields):
    return {"name": "stock", "input_schema": schema, **fields}


def picture(media_type="image/bmp"):
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": "eA=="}}


HI = [text("hi")]
ADAPTIVE = {"model": "claude-opus-4-8", **turns(HI)}
ANTHROPIC_TAKEN = {
    "model": "claude-opus-4-5",
    "max_tokens": 4000,
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "tools": [schema_tool()],
    **turns(HI, [thinking(), use()], [result(), text("so?")]),
}
ANTHROPIC = {
    "a field that it does not know": {"stop": ["x"]},
    "no max_tokens": {"max_tokens": ...},
    "a role that it does not know": {"messages": [USER, {"role": "tool", "content": "x"}]},
    "a history that the user does not begin": {"messages": [{"role": "assistant", "content": "x"}, USER]},
    "a message without content": turns(HI, [], HI),
    "text that is empty or white space": turns([text(" ")]),
    "a system prompt of white space": {"system": "\n"},
    "a history that the assistant ends": turns(HI, [text("hello")]),
    "a last answer that ends with white space": turns(HI, [text("hello ")], thinking=...),
    "an id outside [a-zA-Z0-9_-]+": turns(HI, [thinking(), use("a:1")], [result("a:1")]),
    "an id twice in the history": turns(HI, [use()], [result()], [thinking(), use()], [result()]),
    "a name out of bounds": {"tools": [schema_tool(name="wea ther")]},
    "a tool twice": {"tools": [schema_tool(), schema_tool()]},
    "an input that is no object": turns(HI, [thinking(), use(input="x")], [result()]),
    "a call without its result behind it": turns(HI, [thinking(), use()], HI),
    "a result without its call before it": turns(HI, [thinking(), text("hello")], [result()]),
    "a result twice": turns(HI, [thinking(), use()], [result(), result()]),
    "a result behind other content": turns(HI, [thinking(), use()], [text("so?"), result()]),
    "a failed result that is no text": turns(
        HI, [thinking(), use()], [result(is_error=True, content=[picture("image/png")])]
    ),
    "thinking that another model or account signed, or that was changed": turns(
        HI, [thinking("claude-sonnet-5-5"), use()], [result()]
    ),
    "a tool loop without the thinking that began it": turns(HI, [use()], [result()]),
    "temperature of a model that thinks": {"temperature": 0.5},
    "temperature, top_p or top_k of a model without": {**ADAPTIVE, "thinking": ..., "top_p": 0.5},
    "a budget of thinking where it is adaptive": ADAPTIVE,
    "a forced tool choice of a model that thinks": {"tool_choice": {"type": "any"}},
    "a budget of thinking out of bounds": {"max_tokens": 2000},
    "more than 4 cache breakpoints": turns([{**text("hi"), "cache_control": {"type": "ephemeral"}}] * 5),
    "an image that is no png, jpeg, gif, webp": turns([picture()]),
    "a stop sequence of white space": {"stop_sequences": ["\n"]},
    "a tool whose schema is no object": {"tools": [schema_tool({})]},
    "a property outside [a-zA-Z0-9_.-]{1,64}": {
        "tools": [schema_tool({"type": "object", "properties": {"filter[x]": {}}})]
    },
    "a strict tool outside the subset": {"tools": [schema_tool(OPEN, strict=True)]},
    "an output schema outside the subset": {
        "output_config": {"format": {"type": "json_schema", "schema": OPEN}}
    },
}

# Gemini


def fc(name="stock", by="gemini-3-pro", **fields):
    sealed = signed("gemini", [name, {}], by)
    return {"functionCall": {"name": name, "args": {}, **fields}, "thoughtSignature": sealed}


def fr(name="stock", **fields):
    return {"functionResponse": {"name": name, "response": {"output": "3"}, **fields}}


def contents(*given, **fields):
    roles = ("user", "model")
    return {"contents": [{"role": roles[at % 2], "parts": parts} for at, parts in enumerate(given)], **fields}


def declared(*functions):
    return {"tools": [{"functionDeclarations": list(functions)}]}


ASK = [{"text": "hi"}]
STOCK = {"name": "stock", "parametersJsonSchema": CLOSED}
JSON_ONLY = {"responseMimeType": "application/json", "responseJsonSchema": CLOSED}
GEMINI_TAKEN = {"model": "gemini-3-pro", **declared(STOCK), **contents(ASK, [fc()], [fr()])}
UNSIGNED = {"functionCall": {"name": "stock", "args": {}}}
BLOB = {"inlineData": {"mimeType": "image/bmp", "data": "eA=="}}
GEMINI = {
    "a field that it does not know": {"messages": []},
    "no contents": {"contents": []},
    "a content without parts": contents(ASK, [], ASK),
    "a part without data, or with empty text": contents([{"text": ""}]),
    "a role that it does not know": {"contents": [{"role": "assistant", "parts": ASK}]},
    "a call of the user's, a result of the model's": contents([fc()]),
    "a history that the model ends": contents(ASK, ASK),
    "a call that does not follow the user or a result": {
        "contents": [{"role": "model", "parts": [fc()]}, {"role": "user", "parts": [fr()]}]
    },
    "another number of results than of calls": contents(ASK, [fc(), UNSIGNED], [fr()]),
    "a result that does not follow its call": contents(ASK, ASK, [fr()]),
    "a result under another name or id than its call": contents(ASK, [fc()], [fr("price")]),
    "a name out of bounds": declared({"name": "1 stock"}),
    "a tool twice": declared(STOCK, STOCK),
    "a call without a signature in the turn that goes on": contents(ASK, [UNSIGNED], [fr()]),
    "a signature of another model or account, or of another part": contents(
        ASK, [fc(by="gemini-3-flash")], [fr()]
    ),
    "more than 5 stop sequences": {"generationConfig": {"stopSequences": list("abcdef")}},
    "a temperature out of bounds": {"generationConfig": {"temperature": 2.5}},
    "JSON beside tools before Gemini 3": {
        "model": "gemini-2.5-pro",
        **contents(ASK),
        "generationConfig": JSON_ONLY,
    },
    "media of a type that it does not take": contents([BLOB]),
    "media in a result before Gemini 3": contents(
        ASK,
        [UNSIGNED],
        [fr(parts=[{"inlineData": {"mimeType": "image/png", "data": "eA=="}}])],
        model="gemini-2.5-pro",
    ),
    "a schema outside the subset of OpenAPI": declared({"name": "stock", "parameters": CLOSED}),
    "two schemas of one tool": declared({**STOCK, "parameters": {"type": "object"}}),
    "an output schema without its type": {"generationConfig": {"responseJsonSchema": CLOSED}},
    "an output schema that it would not read in full": {
        "generationConfig": {**JSON_ONLY, "responseJsonSchema": {"type": "string", "pattern": "a"}}
    },
    "thinking of a model without, or set twice": {
        "generationConfig": {"thinkingConfig": {"thinkingBudget": 9, "thinkingLevel": "low"}}
    },
}

SAMPLES = {
    "openai-responses": (RESPONSES_TAKEN, RESPONSES),
    "openai-chat": (PLAIN, CHAT),
    "deepseek": (DEEPSEEK_TAKEN, DEEPSEEK),
    "openrouter": (OPENROUTER_TAKEN, OPENROUTER),
    "groq": (GROQ_TAKEN, GROQ),
    "mistral": (MISTRAL_TAKEN, MISTRAL),
    "anthropic": (ANTHROPIC_TAKEN, ANTHROPIC),
    "gemini": (GEMINI_TAKEN, GEMINI),
}


def broken(provider, rule):
    """The request that breaks the rule."""
    taken, changes = SAMPLES[provider]
    return {name: value for name, value in {**taken, **changes[rule]}.items() if value is not ...}
