"""Keys, credentials, addresses, event loops, and what is loaded when."""

import asyncio
import logging
import subprocess
import sys

import pytest

from atto.models import Closeable, Model, ModelRequest
from atto.models.gemini import Gemini
from atto.protocol.errors import InvalidAgent, MissingExtra, ModelError
from atto.protocol.messages import Message, Origin

from .chat_server import sse
from .conftest import KEY
from .gemini_payloads import answer, refusal, said, text

TOKEN = "ya29.canary-0123456789"  # noqa: S105


@pytest.fixture
def url(server):
    return server.url.removesuffix("/v1")


def credentials(token=TOKEN, error=None):
    import google.auth.credentials

    class Fake(google.auth.credentials.Credentials):
        renewed = 0

        def refresh(self, request):
            if error is not None:
                raise error
            self.renewed += 1
            self.token = token

    return Fake()


def test_it_is_a_model():
    model = Gemini("m", api_key=KEY)
    assert isinstance(model, Model)
    assert isinstance(model, Closeable)


def test_no_key():
    with pytest.raises(InvalidAgent, match="GEMINI_API_KEY"):
        Gemini("m")


@pytest.mark.parametrize("name", ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
async def test_the_key_of_the_environment(server, ask, monkeypatch, url, name):
    monkeypatch.setenv("GOOGLE_API_KEY", "the-other-key")
    monkeypatch.setenv(name, KEY)
    model = Gemini("m", base_url=url)
    server.reply(answer("ok"))
    await ask(model)
    await model.aclose()
    assert server.requests[0].headers["x-goog-api-key"] == KEY


async def test_a_proxy_needs_no_key(server, ask, url):
    model = Gemini("m", base_url=url)
    server.reply(answer("ok"))
    assert (await ask(model)).message.text == "ok"
    await model.aclose()


@pytest.mark.parametrize("address", ["localhost:11434", "ftp://x/v1", "http://", "nonsense"])
def test_an_address_that_is_none(address):
    with pytest.raises(InvalidAgent, match="base URL"):
        Gemini("m", api_key=KEY, base_url=address)


@pytest.mark.parametrize("key", ["sk-ключ", "sk-two\nlines"])
def test_a_key_that_cannot_be_sent(key):
    with pytest.raises(InvalidAgent) as caught:
        Gemini("m", api_key=key)
    assert key not in str(caught.value)


def test_either_a_key_or_vertex():
    with pytest.raises(InvalidAgent, match="either"):
        Gemini("m", api_key=KEY, project="acme")


def test_vertex_without_a_project(monkeypatch):
    with pytest.raises(InvalidAgent, match="GOOGLE_CLOUD_PROJECT"):
        Gemini("m", location="europe-west1")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
    assert Gemini("m", location="europe-west1").origin == Origin("vertex", "m", "acme")


@pytest.mark.parametrize(
    ("fields", "origin"),
    [
        ({"api_key": KEY}, Origin("gemini", "m")),
        ({"api_key": KEY, "account": "a"}, Origin("gemini", "m", "a")),
        (
            {"api_key": KEY, "base_url": "https://generativelanguage.googleapis.com/v1beta"},
            Origin("gemini", "m"),
        ),
        ({"base_url": "http://localhost:4010/v1beta"}, Origin("gemini@localhost:4010", "m")),
        ({"base_url": "https://user:password@host/v1"}, Origin("gemini@host", "m")),
        (
            {"base_url": "https://googleapis.com.evil.example"},
            Origin("gemini@googleapis.com.evil.example", "m"),
        ),
        ({"project": "acme"}, Origin("vertex", "m", "acme")),
        ({"project": "acme", "account": "b"}, Origin("vertex", "m", "b")),
        ({"project": "acme", "base_url": "https://gateway"}, Origin("vertex@gateway", "m", "acme")),
    ],
)
def test_the_origin(fields, origin):
    assert Gemini("m", **fields).origin == origin


@pytest.mark.parametrize(
    ("suffix", "path"),
    [
        ("", "/v1/models/m"),
        ("/", "/v1/models/m"),
        ("/v1beta", "/v1beta/models/m"),
        ("/v1beta/", "/v1beta/models/m"),
        ("/v1alpha", "/v1alpha/models/m"),
        ("/gateway/v1beta1", "/gateway/v1beta1/models/m"),
        ("/vault", "/vault/v1/models/m"),
    ],
)
async def test_the_address(server, ask, url, suffix, path):
    model = Gemini("m", api_key=KEY, base_url=url + suffix)
    server.reply(answer("ok"))
    await ask(model)
    await model.aclose()
    assert server.requests[0].path == f"{path}:streamGenerateContent?alt=sse"


async def test_the_address_of_the_environment(server, ask, url, monkeypatch):
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", url)
    model = Gemini("m", api_key=KEY)
    server.reply(answer("ok"))
    assert (await ask(model)).message.origin.provider.startswith("gemini@127.0.0.1:")
    await model.aclose()


async def test_a_key_means_ai_studio_whatever_the_environment_says(server, ask, monkeypatch, url):
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "acme")
    monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west1")
    model = Gemini("m", api_key=KEY, base_url=url)
    server.reply(answer("ok"))
    await ask(model)
    await model.aclose()
    assert server.requests[0].path.startswith("/v1/models/m:")


@pytest.mark.parametrize("location", ["europe-west1", None])
async def test_vertex(server, ask, url, monkeypatch, location):
    monkeypatch.setenv("GEMINI_API_KEY", "not-for-vertex")
    own = credentials()
    model = Gemini("gemini-3-pro", project="acme", location=location, credentials=own, base_url=url)
    for _ in range(2):
        server.reply(answer("ok"))
        assert (await ask(model)).message.text == "ok"
    await model.aclose()
    request = server.requests[1]
    place = f"projects/acme/locations/{location or 'global'}"
    assert request.path == (
        f"/v1beta1/{place}/publishers/google/models/gemini-3-pro:streamGenerateContent?alt=sse"
    )
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert "x-goog-api-key" not in request.headers
    assert own.renewed == 1


async def test_a_token_is_never_shown(server, ask, url):
    model = Gemini("m", project="acme", credentials=credentials(), base_url=url)
    server.refuse(401, refusal(401, "UNAUTHENTICATED", f"bad token {TOKEN}"))
    with pytest.raises(ModelError, match=r"bad token \*\*\*") as caught:
        await ask(model)
    assert not caught.value.transient
    await model.aclose()


@pytest.mark.parametrize(
    ("name", "transient"),
    [("TransportError", True), ("RefreshError", False), ("DefaultCredentialsError", False)],
)
async def test_no_token(server, ask, url, name, transient):
    import google.auth.exceptions

    error = getattr(google.auth.exceptions, name)("not today")
    model = Gemini("m", project="acme", credentials=credentials(error=error), base_url=url)
    with pytest.raises(ModelError, match="no access token") as caught:
        await ask(model)
    assert caught.value.transient is transient
    assert server.requests == []
    await model.aclose()


async def test_the_key_is_in_no_log_and_no_repr(server, ask, url, caplog):
    caplog.set_level(logging.DEBUG)
    model = Gemini("m", api_key=KEY, base_url=url)
    server.reply(answer("ok"))
    await ask(model)
    server.refuse(400, refusal(400, "INVALID_ARGUMENT", "API key not valid"))
    with pytest.raises(ModelError):
        await ask(model)
    assert KEY not in caplog.text
    assert KEY not in f"{model!r} {model._access()!r} {model._wire()!r}"
    assert "streamGenerateContent" in caplog.text
    await model.aclose()


async def test_a_client_of_ones_own_is_used_and_left_open(server, ask, url):
    import httpx2

    async with httpx2.AsyncClient(headers={"x-team": "blue"}) as client:
        model = Gemini("m", api_key=KEY, base_url=url, client=client)
        server.refuse(503, refusal(503, "UNAVAILABLE"))
        server.reply(answer("ok"))
        with pytest.raises(ModelError, match="503"):
            await ask(model)
        assert len(server.requests) == 1
        assert (await ask(model)).message.text == "ok"
        assert server.requests[1].headers["x-team"] == "blue"
        await model.aclose()
        assert not client.is_closed


async def test_closing_twice_and_going_on(server, ask, url):
    model = Gemini("m", api_key=KEY, base_url=url)
    await model.aclose()
    for _ in range(2):
        server.reply(answer("ok"))
        assert (await ask(model)).message.text == "ok"
        await model.aclose()
        await model.aclose()


async def test_one_model_in_several_event_loops(server, ask, url):
    model = Gemini("m", api_key=KEY, base_url=url)

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
    await model.aclose()


async def test_streams_of_one_task_do_not_mix(server, url):
    """The exchange that the transport finds is that of the stream, also where one task reads several."""
    model = Gemini("m", api_key=KEY, base_url=url)
    streams = []
    for name in ("a", "b"):
        server.reply(sse(said(text(name), reason="STOP")))
        stream = model.stream(ModelRequest(messages=(Message.user(name),)))
        streams.append((name, stream, await anext(stream)))
    for name, stream, first in reversed(streams):
        assert first.text == name
        assert [chunk async for chunk in stream]
    await model.aclose()
    asked = [request.body["contents"][0]["parts"][0]["text"] for request in server.requests]
    assert asked == ["a", "b"]


def test_without_the_sdk(monkeypatch):
    monkeypatch.setattr("atto.models.gemini.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match=r"pip install 'atto-agents\[gemini\]'"):
        Gemini("m", api_key=KEY)


def test_the_sdk_is_not_loaded_before_it_is_used():
    code = (
        "import sys\n"
        "import atto.models\n"
        "assert 'atto.models.gemini' not in sys.modules\n"
        "from atto.models import Gemini\n"
        "print(Gemini('m', api_key='a-key'))\n"
        "assert not {'google.genai', 'google.auth', 'httpx2', 'pydantic'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
