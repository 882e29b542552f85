"""Models by name, and the servers that speak OpenAI's APIs."""

import pytest

from atto.models import azure, named, ollama, vllm
from atto.models.gemini import Gemini
from atto.models.openai import OpenAIChat
from atto.models.openai_responses import OpenAIResponses
from atto.protocol.errors import InvalidAgent, MissingExtra
from atto.protocol.messages import Origin

from .chat_server import answer
from .conftest import KEY
from .responses_payloads import answer as responses_answer


@pytest.fixture(autouse=True)
def environment(monkeypatch, clean_environment):
    for name in ("AZURE_OPENAI_ENDPOINT", "AZURE_OPENAI_API_KEY", "OLLAMA_HOST", "VLLM_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.mark.parametrize(
    ("name", "kind", "origin"),
    [
        ("openai:gpt-5", OpenAIResponses, Origin("openai", "gpt-5")),
        (" OpenAI : gpt-5 ", OpenAIResponses, Origin("openai", "gpt-5")),
        ("openai-chat:gpt-5", OpenAIChat, Origin("openai-chat", "gpt-5")),
        ("gemini:gemini-3-pro", Gemini, Origin("gemini", "gemini-3-pro")),
        ("vertex:gemini-3-pro", Gemini, Origin("vertex", "gemini-3-pro", "acme")),
        ("azure:mine", OpenAIResponses, Origin("openai@acme.openai.azure.com", "mine")),
        ("azure-chat:mine", OpenAIChat, Origin("openai-chat", "mine")),
        ("ollama:llama3:8b", OpenAIChat, Origin("openai-chat@localhost:11434", "llama3:8b")),
        ("vllm:Qwen/Qwen3-8B", OpenAIChat, Origin("openai-chat@localhost:8000", "Qwen/Qwen3-8B")),
    ],
)
def test_names(monkeypatch, name, kind, origin):
    monkeypatch.setenv("GEMINI_API_KEY", "gemini-canary-key")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://acme.openai.azure.com/")
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", "azure-canary-key")
    model = named(name)
    assert type(model) is kind
    assert model.origin == origin


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("gpt-5", "write, say, `openai:gpt-5`"),
        ("openia:gpt-5", "did you mean 'openai'"),
        ("nobody:x", "known are openai, openai-chat, anthropic, gemini"),
        ("openai:", "write, say, `openai:NAME`"),
        ("gemini:x", "set GEMINI_API_KEY"),
        ("vertex:x", "GOOGLE_CLOUD_PROJECT"),
        ("azure:x", "set AZURE_OPENAI_API_KEY"),
    ],
)
def test_what_cannot_be_made_says_how_to_mend_it(name, mend):
    with pytest.raises(InvalidAgent) as caught:
        named(name)
    assert mend in str(caught.value)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("atto.models.openai_access.find_spec", lambda _: None)
    for name in ("openai:x", "openai-chat:x", "ollama:x", "vllm:x"):
        with pytest.raises(MissingExtra, match=r"pip install 'atto-agents\[openai\]'"):
            named(name)


async def test_no_key_of_openai_goes_to_other_servers(server, ask):
    for model in (ollama("m", server.url.removesuffix("/v1")), vllm("m", server.url)):
        server.reply(answer("ok"))
        assert (await ask(model)).message.text == "ok"
        await model.aclose()
    assert [request.headers["authorization"] for request in server.requests] == ["Bearer no-key-needed"] * 2
    with pytest.raises(InvalidAgent, match="azure has no key"):
        azure("m", resource="acme")


async def test_azure_with_tokens_that_are_fetched(server, ask):
    tokens = iter(["entra-token-one", "entra-token-two"])

    async def token():
        return next(tokens)

    endpoint = server.url.removesuffix("/v1")
    for chat, said in ((False, responses_answer("ok")), (True, answer("ok"))):
        model = azure("mine", endpoint=endpoint, token=token, chat=chat)
        server.reply(said)
        assert (await ask(model)).message.text == "ok"
        await model.aclose()
    paths = [request.path for request in server.requests]
    sent = [request.headers["authorization"] for request in server.requests]
    assert paths == ["/openai/v1/responses", "/openai/v1/chat/completions"]
    assert sent == ["Bearer entra-token-one", "Bearer entra-token-two"]


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://acme.openai.azure.com",
        "https://acme.openai.azure.com/openai/",
        "https://acme.openai.azure.com/openai/v1/",
    ],
)
def test_where_azure_is(endpoint):
    assert azure("m", endpoint=endpoint, api_key=KEY).origin.provider == "openai@acme.openai.azure.com"
    with pytest.raises(InvalidAgent, match="AZURE_OPENAI_ENDPOINT"):
        azure("m", api_key=KEY)


@pytest.mark.parametrize(
    ("host", "server"),
    [
        ("", "localhost:11434"),
        ("gpu-1", "gpu-1:11434"),
        ("0.0.0.0:8080", "127.0.0.1:8080"),
        ("https://ollama.example/v1/", "ollama.example:443"),
        ("http://[::1]:99", "[::1]:99"),
    ],
)
def test_where_ollama_is(monkeypatch, host, server):
    assert ollama("m", host).origin.provider == f"openai-chat@{server}"
    monkeypatch.setenv("OLLAMA_HOST", host)
    assert ollama("m").origin.provider == f"openai-chat@{server}"
