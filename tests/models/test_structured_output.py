"""An answer by a schema, asked of every model: as each provider takes it, and told apart from no answer."""

import json

import pytest

from atto.models.base import ModelRequest
from atto.protocol.messages import Message
from atto.testing.model_checks import ask
from atto.testing.model_dialect import Said
from atto.testing.providers import RuleServer

from .families import FAMILIES, before
from .talks import STOCK
from .test_schemas import DEFS, LEAVES, UNSAID, one

SCHEMAS = {
    "plain": one({"type": "string"}),
    "optional": {"title": "A report!", "type": "object", "properties": {"a": {"type": "integer"}}},
    "recursive": {**one({"$ref": "#/$defs/Node"}), "$defs": DEFS},
    **{f"leaf {at}": {**one(schema), "$defs": DEFS} for at, (schema, _) in enumerate(LEAVES)},
    **UNSAID,
}
HELD = {
    "responses", "responses-plain", "chat", "openrouter", "openrouter-gemini", "mistral-plain",
    "anthropic", "anthropic-budget", "gemini-3", "gemini-2.0",
}  # fmt: skip


@pytest.mark.parametrize("tools", [(), (STOCK,)], ids=["alone", "beside-tools"])
@pytest.mark.parametrize("name", FAMILIES)
async def test_no_provider_refuses_a_schema_and_each_sees_it(name, tools):
    async with RuleServer() as server, before(server, name) as (model,):
        for schema in SCHEMAS.values():
            server.say(Said(('{"a": "x"}',)))
            request = ModelRequest(
                messages=(Message.user("Report."),),
                tools=tools,
                output_schema=schema,
                instruction="Be brief.",
            )
            answer = await ask(model, request)
            assert server.refused == [], schema
            assert answer.message.text == '{"a": "x"}'
            assert answer.finish == "stop"


@pytest.mark.parametrize("name", sorted(HELD))
async def test_a_plain_schema_is_held_to(name):
    async with RuleServer() as server, before(server, name) as (model,):
        await ask(model, ModelRequest(messages=(Message.user("Report."),), output_schema=SCHEMAS["plain"]))
        body = server.requests[-1].body
        sent = body.get(
            "response_format", body.get("output_config", body.get("text", body.get("generationConfig")))
        )
        assert '"properties": {"a": {"type": "string"' in json.dumps(sent)
        if "json_schema" in sent or "text" in body:
            assert '"strict": true' in json.dumps(sent)
        assert "JSON Schema" not in json.dumps(body)


@pytest.mark.parametrize(
    ("name", "schema", "tools"),
    [
        ("deepseek", "plain", ()),
        ("groq", "plain", ()),
        ("groq", "plain", (STOCK,)),
        ("gemini-2.0", "plain", (STOCK,)),
        ("anthropic", "recursive", ()),
        ("mistral-plain", "a dictionary", ()),
        ("openrouter", "recursive", ()),
    ],
)
async def test_what_is_not_held_to_is_asked_for(name, schema, tools):
    async with RuleServer() as server, before(server, name) as (model,):
        request = ModelRequest(
            messages=(Message.user("Report."),),
            tools=tools,
            output_schema=SCHEMAS[schema],
            instruction="Brief.",
        )
        await ask(model, request)
        sent = json.dumps(server.requests[-1].body)
        assert "Brief." in sent
        assert "JSON Schema" in sent


@pytest.mark.parametrize("name", FAMILIES)
async def test_a_cut_answer_and_a_filtered_one_are_none(name):
    async with RuleServer() as server, before(server, name) as (model,):
        for finish in ("length", "content_filter"):
            server.say(Said(('{"a": ',), finish=finish))
            request = ModelRequest(messages=(Message.user("Report."),), output_schema=SCHEMAS["plain"])
            assert (await ask(model, request)).finish == finish


async def test_a_strict_tool():
    async with RuleServer() as server, before(server, "responses", "chat") as models:
        for model in models:
            await ask(model, ModelRequest(messages=(Message.user("hi"),), tools=(STOCK,)))
            assert server.refused == []
            (tool,) = server.requests[-1].body["tools"]
            function = tool.get("function", tool)
            assert function["strict"] is True
            assert function["parameters"] == {**STOCK.parameters, "additionalProperties": False}
