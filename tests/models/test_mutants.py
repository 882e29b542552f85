"""Mutants of the adapters: what each of them forgets, the rule server refuses."""

import re
from dataclasses import replace

import pytest

from atto.models import (
    anthropic,
    anthropic_request,
    chat_request,
    gemini_request,
    history,
    responses_request,
)
from atto.models.chat_manners import manners_of
from atto.models.openai_parts import same_account
from atto.protocol.errors import ModelError
from atto.protocol.messages import ImagePart, ReasoningPart
from atto.testing.providers import RuleServer

from .families import FAMILIES
from .talks import PIXEL, Stage

NEVER = re.compile(r"(?!)")
ALWAYS = re.compile(r"")


def without_signatures(body):
    def mutant(*args, **fields):
        made = body(*args, **fields)
        for message in made["messages"]:
            for block in message["content"]:
                block.pop("signature", None)
        return made

    return mutant


def changed_thoughts(body):
    def mutant(*args, **fields):
        made = body(*args, **fields)
        for message in made["messages"]:
            for at, block in enumerate(message["content"]):
                if block["type"] == "thinking":
                    message["content"][at] = {**block, "thinking": block["thinking"].strip() + "!"}
        return made

    return mutant


def unanswered(messages):
    """Without the results of calls that have none."""
    return [
        message
        for message in history.repaired(messages)
        if not any(getattr(part, "content", "") == history.ORPHANED for part in message.content)
    ]


def with_manners(**fields):
    return lambda origin: replace(manners_of(origin), **fields)


def of_the_account(message, origin):
    return same_account(message.origin, origin)


MUTANTS = {
    "an id is used again": (
        [(history, "_unique", lambda call_id, _: call_id or "a")],
        ("mistral", "anthropic"),
        "an id twice in the history",
    ),
    "a call is not answered": (
        [(anthropic_request, "repaired", unanswered)],
        ("chat", "anthropic"),
        "a call without its result behind it",
    ),
    "a call is not answered, in the Responses API": (
        [(responses_request, "repaired", list)],
        ("chat", "responses"),
        "a call without its output",
    ),
    "ids go as they are to Mistral": (
        [(chat_request, "short_id", lambda call_id: call_id)],
        ("responses", "mistral-plain"),
        "an id that is not nine letters and digits",
    ),
    "ids go as they are to Anthropic": (
        [(anthropic_request, "_call_id", lambda call_id: call_id)],
        ("chat", "anthropic"),
        "an id outside [a-zA-Z0-9_-]+",
    ),
    "reasoning goes to another model of OpenAI's": (
        [(responses_request, "is_own", of_the_account)],
        ("responses", "responses-mini"),
        "reasoning that another model or account encrypted",
    ),
    "reasoning goes to a plain model of OpenAI's": (
        [(responses_request, "is_own", of_the_account)],
        ("responses", "responses-plain"),
        "reasoning to a plain model",
    ),
    "reasoning goes to another account of OpenAI's": (
        [(responses_request, "is_own", lambda message, origin: message.origin.model == origin.model)],
        ("responses", "responses-elsewhere"),
        "reasoning that another model or account encrypted",
    ),
    "reasoning is left out, ids are not": (
        [(responses_request, "_is_sent", lambda part: not isinstance(part, ReasoningPart))],
        ("responses", "responses"),
        "an item without the reasoning that led to it",
    ),
    "encrypted reasoning is asked of all models": (
        [(responses_request, "_PLAIN", NEVER)],
        ("responses-plain", "responses"),
        "encrypted reasoning of a plain model",
    ),
    "thinking goes to another Claude": (
        [(anthropic_request, "is_own", of_the_account)],
        ("anthropic", "anthropic-budget"),
        "thinking that another model or account signed, or that was changed",
    ),
    "a signature is dropped": (
        [(anthropic, "messages_body", without_signatures(anthropic.messages_body))],
        ("anthropic", "anthropic"),
        "thinking that another model or account signed, or that was changed",
    ),
    "thinking is changed": (
        [(anthropic, "messages_body", changed_thoughts(anthropic.messages_body))],
        ("anthropic", "anthropic"),
        "thinking that another model or account signed, or that was changed",
    ),
    "thinking goes on where it did not begin": (
        [(anthropic_request, "_goes_on_without_thinking", lambda _: False)],
        ("chat", "anthropic-budget"),
        "a tool loop without the thinking that began it",
    ),
    "a signature goes to another Gemini": (
        [(gemini_request, "is_own", of_the_account)],
        ("gemini-3", "gemini-3-flash"),
        "a signature of another model or account, or of another part",
    ),
    "a call of another goes unsigned to Gemini": (
        [(gemini_request, "_BEFORE_3", ALWAYS)],
        ("chat", "gemini-3"),
        "a call without a signature in the turn that goes on",
    ),
    "the user speaks behind results": (
        [(chat_request, "manners_of", with_manners(answers_results=False))],
        ("mistral", "mistral"),
        "a role behind one that it may not follow",
    ),
    "DeepSeek does not see what it thought": (
        [(chat_request, "manners_of", with_manners(thinks_aloud=False))],
        ("chat", "deepseek"),
        "a call without the reasoning that led to it",
    ),
    "DeepSeek is shown images": (
        [(chat_request, "manners_of", with_manners(takes_media=True))],
        ("deepseek", "chat"),
        "content that is no text",
    ),
    "a cache key is too long": (
        [(responses_request, "cache_key", lambda key: key)],
        ("chat", "responses"),
        "prompt_cache_key of more than 64 characters",
    ),
    "a name goes as it is": (
        [(chat_request, "spec_name", lambda name: f"{name} !")],
        ("chat", "chat"),
        "a name outside [a-zA-Z0-9_-]{1,64}",
    ),
}


async def talk_it_through(stage, first, second):
    async with stage.play() as talk:
        talk.user("How many are there?", ImagePart(data=PIXEL, media_type="image/png"))
        talk.results(await talk.call(first))
        talk.results(await talk.call(second))
        talk.results(await talk.call(first))
        await talk.call(second)
        talk.user("Never mind.")
        await talk.say(second)
        talk.user("Sure?")
        await talk.say(first)


@pytest.mark.parametrize("name", MUTANTS)
async def test_the_rule_server_refuses_the_mutant(monkeypatch, name):
    patches, (first, second), rule = MUTANTS[name]
    async with RuleServer() as server, server.client() as http:
        stage = Stage(server, {name: FAMILIES[name].make(http) for name in {first, second}})
        await talk_it_through(stage, first, second)  # as the adapters are, it goes well
        for module, attribute, mutant in patches:
            monkeypatch.setattr(module, attribute, mutant)
        with pytest.raises(ModelError):
            await talk_it_through(stage, first, second)
        assert server.refused[0].rule.name == rule
        for model in stage.models.values():
            await model.aclose()
