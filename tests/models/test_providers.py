"""The rule server: that it speaks as the providers do, and what its table of rules says."""

import json
from pathlib import Path

import pytest

from atto.models.base import ModelRequest, ToolSpec
from atto.protocol.messages import Message, ToolResultPart
from atto.testing.model_checks import ask
from atto.testing.model_dialect import Said, SaidCall
from atto.testing.providers import PROVIDERS, RuleServer
from atto.testing.providers.__main__ import page

from .families import FAMILIES, before
from .rule_samples import SAMPLES, broken

STOCK = ToolSpec(
    "stock",
    "How many there are.",
    {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]},
)
ANSWER = Said(
    ("One ", "moment."),
    reasoning=("let me ", "see"),
    calls=(SaidCall("", "stock", ('{"item"', ':"lamp"}')), SaidCall("", "stock", ('{"item":"sofa"}',))),
)


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
def test_each_rule_has_a_name_of_its_own_and_a_source(provider):
    names = [rule.name for rule in provider.rules]
    assert len(set(names)) == len(names)
    for rule in provider.rules:
        assert rule.evidence in {"documented", "seen", "inferred"}
        assert rule.source.startswith("https://")


@pytest.mark.parametrize("name", FAMILIES)
async def test_each_provider_answers_in_its_own_words(name):
    family = FAMILIES[name]
    async with RuleServer() as server, before(server, name) as (model,):
        server.say(ANSWER)
        answer = await ask(model, ModelRequest(messages=(Message.user("How many?"),), tools=(STOCK,)))
        assert answer.message.text == "One moment."
        assert [call.arguments for call in answer.message.tool_calls] == [{"item": "lamp"}, {"item": "sofa"}]
        thought = "".join(
            part.text for part in answer.message.content if part.__class__.__name__ == "ReasoningPart"
        )
        assert thought == ("let me see" if family.reasons else "")
        assert answer.finish == "tool_calls"
        assert server.refused == []


async def test_a_refusal_is_the_providers_own_and_stands_in_a_list():
    async with RuleServer() as server, server.client() as http:
        body = {"model": "claude-sonnet-5-5", "max_tokens": 9, "messages": []}
        reply = await http.post("https://api.anthropic.com/v1/messages", json=body)
        assert reply.status_code == 400
        assert reply.json()["error"] == {
            "type": "invalid_request_error",
            "message": "messages: at least one message is required",
        }
        (refused,) = server.refused
        assert (refused.provider, refused.rule.name) == (
            "anthropic",
            "a history that the user does not begin",
        )


async def test_results_are_wanted_for_calls():
    async with RuleServer() as server, before(server, "chat") as (model,):
        server.say(ANSWER)
        first = ModelRequest(messages=(Message.user("How many?"),), tools=(STOCK,))
        answer = (await ask(model, first)).message
        results = tuple(ToolResultPart(call.id, call.name, "3") for call in answer.tool_calls)
        history = (*first.messages, answer, Message("tool", results))
        assert (await ask(model, ModelRequest(messages=history, tools=(STOCK,)))).message.text == "ok"


RULES = [(provider, rule) for provider in PROVIDERS.values() for rule in provider.rules]


def url_of(provider, body):
    at = {"gemini": f"/v1beta/models/{body['model']}", "anthropic": "/v1"}.get(provider.name, "/v1")
    return f"https://{provider.host}{at}{provider.path}"


async def post(server, provider, body):
    async with server.client() as http:
        sent = {name: value for name, value in body.items() if provider.name != "gemini" or name != "model"}
        return await http.post(url_of(provider, body), json=sent, headers={"authorization": "Bearer one"})


@pytest.mark.parametrize(
    ("provider", "rule"), RULES, ids=[f"{provider.name}: {rule.name}" for provider, rule in RULES]
)
async def test_each_rule_refuses_what_breaks_it(provider, rule):
    async with RuleServer() as server:
        reply = await post(server, provider, broken(provider.name, rule.name))
        assert [(refused.provider, refused.rule.name) for refused in server.refused] == [
            (provider.name, rule.name)
        ]
        assert 400 <= reply.status_code < 500
        (refused,) = server.refused
        assert refused.violation.message in json.dumps(reply.json(), ensure_ascii=False).replace(
            "\\", ""
        ) or (json.dumps(refused.violation.message)[1:-1] in reply.text)


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=PROVIDERS)
async def test_what_breaks_no_rule_is_answered(provider):
    taken, changes = SAMPLES[provider.name]
    assert changes.keys() == {rule.name for rule in provider.rules}
    async with RuleServer() as server:
        reply = await post(server, provider, taken)
        assert server.refused == []
        assert reply.status_code == 200
        assert "ok" in reply.text


def test_the_page_of_rules_is_that_of_the_code():
    root = Path(__file__).parents[2]
    assert (root / "docs" / "provider-rules.md").read_text() == page(), "python -m atto.testing.providers"
