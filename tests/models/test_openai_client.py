"""Keys, addresses, event loops, and what is loaded when."""

import asyncio
import subprocess
import sys

import pytest

from atto.models import Closeable, Model
from atto.models.openai import OpenAIChat
from atto.protocol.errors import InvalidAgent, MissingExtra, ModelError
from atto.protocol.messages import Origin

from .chat_server import answer
from .conftest import KEY

LOCAL = "http://localhost:11434/v1"


def test_it_is_a_model():
    model = OpenAIChat("m", api_key=KEY)
    assert isinstance(model, Model)
    assert isinstance(model, Closeable)


def test_neither_key_nor_address():
    with pytest.raises(InvalidAgent, match="OPENAI_API_KEY"):
        OpenAIChat("m")


@pytest.mark.parametrize("url", ["localhost:11434", "ftp://x/v1", "http://", "nonsense"])
def test_an_address_that_is_none(url):
    with pytest.raises(InvalidAgent, match="base URL"):
        OpenAIChat("m", base_url=url)


@pytest.mark.parametrize("key", ["sk-ключ", "sk-two\nlines"])
def test_a_key_that_cannot_be_sent(key):
    with pytest.raises(InvalidAgent) as caught:
        OpenAIChat("m", api_key=key)
    assert key not in str(caught.value)


def test_either_a_client_or_a_key():
    import openai

    client = openai.AsyncOpenAI(api_key=KEY)
    with pytest.raises(InvalidAgent, match="either"):
        OpenAIChat("m", api_key=KEY, client=client)


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        (None, "openai-chat"),
        ("https://eu.api.openai.com/v1", "openai-chat"),
        ("https://acme.openai.azure.com/openai/v1/", "openai-chat"),
        (LOCAL, "openai-chat@localhost:11434"),
        ("https://user:password@host/v1", "openai-chat@host"),
        ("https://evil-api.openai.com.example/v1", "openai-chat@evil-api.openai.com.example"),
    ],
)
def test_the_origin_and_the_repr_name_the_server_and_no_secret(url, provider):
    model = OpenAIChat("m", api_key=KEY, base_url=url, account="acme")
    assert model.origin == Origin(provider, "m", "acme")
    assert KEY not in repr(model)
    assert "password" not in repr(model)


async def test_key_and_address_from_the_environment(server, ask, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    model = OpenAIChat("m")
    server.reply(answer("ok"))
    await ask(model)
    await model.aclose()
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_local_server_needs_no_key(server, ask):
    model = OpenAIChat("m", base_url=server.url)
    server.reply(answer("ok"))
    await ask(model)
    await model.aclose()
    assert server.requests[0].headers["authorization"] == "Bearer no-key-needed"


async def test_a_key_that_is_fetched_for_each_request(server, ask):
    keys = iter(["token-number-one", "token-number-two"])

    async def fetch():
        return next(keys)

    model = OpenAIChat("m", api_key=fetch, base_url=server.url)
    for _ in range(2):
        server.reply(answer("ok"))
        await ask(model)
    await model.aclose()
    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer token-number-one", "Bearer token-number-two"]


async def test_a_client_of_ones_own_is_used_without_retries_and_left_open(server, ask):
    import openai

    client = openai.AsyncOpenAI(api_key=KEY, base_url=server.url, max_retries=2)
    model = OpenAIChat("m", client=client)
    server.refuse(503, {})
    server.reply(answer("ok"))
    with pytest.raises(Exception, match="503"):
        await ask(model)
    assert len(server.requests) == 1
    await model.aclose()
    assert not client.is_closed()
    await client.close()


async def test_closing_twice_and_going_on(server, model, ask):
    await model.aclose()
    for _ in range(2):
        server.reply(answer("ok"))
        assert (await ask(model)).message.text == "ok"
        await model.aclose()
        await model.aclose()


async def test_one_model_in_several_event_loops(server, model, ask):
    async def use():
        try:
            return (await ask(model)).message.text
        finally:
            await model.aclose()

    for _ in range(2):
        server.reply(answer("ok"))
        assert (await ask(model)).message.text == "ok"
        server.reply(answer("ok"))
        assert await asyncio.to_thread(asyncio.run, use()) == "ok"


def test_without_the_sdk(monkeypatch):
    monkeypatch.setattr("atto.models.openai_access.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'atto-agents\[openai\]'"):
        OpenAIChat("m", api_key=KEY)


def test_the_sdk_is_not_loaded_before_it_is_used():
    code = (
        "import sys\n"
        "import atto.models\n"
        "assert 'atto.models.openai' not in sys.modules\n"
        "from atto.models import OpenAIChat\n"
        "print(OpenAIChat('m', base_url='http://localhost/v1'))\n"
        "assert not {'openai', 'httpx2', 'pydantic'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_unknown_names_are_attribute_errors():
    import atto.models

    with pytest.raises(AttributeError, match="Nonsense"):
        _ = atto.models.Nonsense


@pytest.mark.parametrize("key", ["sk-secret-\u043a\u043b\u044e\u0447", "sk-secret-two\nlines"])
async def test_a_fresh_key_that_cannot_be_sent_is_not_repeated(server, ask, key):
    async def fresh():
        return key

    model = OpenAIChat("m", api_key=fresh, base_url=server.url)
    with pytest.raises(ModelError, match="cannot be sent") as caught:
        await ask(model)
    assert "secret" not in str(caught.value)
    assert not caught.value.transient
    await model.aclose()
