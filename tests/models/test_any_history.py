"""Whatever a history holds, no provider refuses it: histories at random, of any models and of any making."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atto.models.anthropic_request import messages_body
from atto.models.base import ModelRequest, ToolSpec
from atto.models.chat_request import chat_body
from atto.models.gemini_request import gemini_body
from atto.models.responses_request import responses_body
from atto.protocol.messages import (
    ImagePart,
    Message,
    Origin,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from atto.testing.providers import PROVIDERS, Ask
from atto.testing.providers.rule import violates

TOOLS = (ToolSpec("stock", "", {"type": "object", "properties": {}}),)
BUDGET = {"thinking": {"type": "enabled", "budget_tokens": 2000}}


def responses(request, model):
    origin = Origin("openai", model, "one")
    return responses_body(request, origin=origin, by_openai=True, options={})


def chat(host=""):
    def make(request, model):
        origin = Origin(f"openai-chat@{host}" if host else "openai-chat", model, "one")
        return chat_body(request, origin=origin, by_openai=not host, options={})

    return make


def anthropic(request, model):
    options = BUDGET if "4-5" in model else {}
    return messages_body(request, origin=Origin("anthropic", model, "one"), max_tokens=8192, options=options)


def gemini(request, model):
    return gemini_body(request, origin=Origin("gemini", model, "one"), options={})


MODELS = [
    ("openai-responses", "gpt-5.2", responses),
    ("openai-responses", "gpt-4.1", responses),
    ("openai-chat", "gpt-5.2", chat()),
    ("deepseek", "deepseek-v4-pro", chat("api.deepseek.com")),
    ("openrouter", "anthropic/claude-sonnet-4.5", chat("openrouter.ai")),
    ("openrouter", "google/gemini-3-pro", chat("openrouter.ai")),
    ("groq", "qwen/qwen3-32b", chat("api.groq.com")),
    ("mistral", "magistral-medium", chat("api.mistral.ai")),
    ("anthropic", "claude-sonnet-5-5", anthropic),
    ("anthropic", "claude-opus-4-5", anthropic),
    ("gemini", "gemini-3-pro", gemini),
    ("gemini", "gemini-2.0-flash", gemini),
]

_origins = st.sampled_from(
    [
        None,
        *(Origin("anthropic", name, "one") for name in ("claude-sonnet-5-5", "claude-opus-4-5")),
        *(Origin("gemini", name, "one") for name in ("gemini-3-pro", "gemini-2.0-flash")),
        Origin("openai", "gpt-5.2", "one"),
        Origin("openai-chat", "gpt-5.2", "one"),
        Origin("openai-chat@api.mistral.ai", "magistral-medium", "one"),
        Origin("openai-chat@api.deepseek.com", "deepseek-v4-pro", "one"),
        Origin("openai-chat@localhost:11434", "qwen", ""),
    ]
)
_ids = st.sampled_from(["", "a", "b", "call_1", "functions.stock:0", "x" * 70, "ü/|", "abcdefgh1"])
_texts = st.sampled_from(["", " ", "\n", "hello", "hello ", "é🎉"])
_names = st.sampled_from(["stock", "no name!", "", "x" * 300, "1st"])
_images = st.just(ImagePart(data=b"x", media_type="image/png"))
_arguments = st.sampled_from([{}, {"item": "lamp"}, {"é": [1, None]}])
_calls = st.builds(ToolCallPart, _ids, _names, _arguments) | st.builds(
    ToolCallPart, _ids, _names, malformed=st.sampled_from(["", "{oops", "[1]"])
)
_results = st.builds(
    ToolResultPart,
    _ids,
    _names,
    _texts | st.lists(st.builds(TextPart, _texts) | _images, max_size=2).map(tuple),
    is_error=st.booleans(),
)
_said = st.builds(TextPart, _texts) | st.builds(ReasoningPart, _texts) | _calls


def _messages(role, parts, least=0, origins=None):
    content = st.lists(parts, min_size=least, max_size=3).map(tuple)
    return st.builds(Message, st.just(role), content, st.none() if origins is None else origins)


_user = _messages("user", st.builds(TextPart, _texts) | _images)
_history = st.lists(
    _user | _messages("assistant", _said, origins=_origins) | _messages("tool", _results), max_size=8
)


def _answered(history):
    """The runtime answers each call, or nothing follows: a request is made behind the user or the results."""
    return (Message.user("hi"), *history, Message.user("Go on."))


@pytest.mark.parametrize(("provider", "model", "make"), MODELS, ids=[f"{p}/{m}" for p, m, _ in MODELS])
@settings(max_examples=100, deadline=None)
@given(history=_history)
def test_any_history_is_taken(provider, model, make, history):
    request = ModelRequest(messages=_answered(history), tools=TOOLS, instruction="Be brief.")
    body = make(request, model)
    assert violates(PROVIDERS[provider].rules, Ask(body, model, "one")) is None


@pytest.mark.parametrize(("provider", "model", "make"), MODELS, ids=[f"{p}/{m}" for p, m, _ in MODELS])
@settings(max_examples=50, deadline=None)
@given(history=_history, calls=_messages("assistant", _calls, 1, _origins))
def test_any_history_goes_on_behind_results(provider, model, make, history, calls):
    messages = (Message.user("hi"), *history, calls)
    body = make(ModelRequest(messages=messages, tools=TOOLS), model)
    assert violates(PROVIDERS[provider].rules, Ask(body, model, "one")) is None
