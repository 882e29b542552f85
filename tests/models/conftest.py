import os
from contextlib import aclosing

import pytest

from atto.models import Assembler, ModelRequest
from atto.models.openai import OpenAIChat
from atto.protocol.messages import Message

from .chat_server import ChatServer

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in (
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "ANTHROPIC_AUTH_TOKEN",
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in list(os.environ):
        if name.startswith(("GEMINI_", "GOOGLE_")):
            monkeypatch.delenv(name)


@pytest.fixture
async def server():
    async with ChatServer() as running:
        yield running


@pytest.fixture
async def model(server):
    chat = OpenAIChat("test-model", api_key=KEY, base_url=server.url)
    yield chat
    await chat.aclose()


@pytest.fixture
def request_hi():
    return ModelRequest(messages=(Message.user("hi"),))


@pytest.fixture
def ask():
    """Streams to the end, and gives the assembled answer."""

    async def run(model, request=None):
        request = request or ModelRequest(messages=(Message.user("hi"),))
        assembler = Assembler(model.origin)
        async with aclosing(model.stream(request)) as chunks:
            async for chunk in chunks:
                assembler.add(chunk)
        return assembler.finish()

    return run
