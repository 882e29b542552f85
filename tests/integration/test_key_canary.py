"""A provider's key is nowhere but in its requests: not in events or logs, whatever the provider repeats."""

import json
import logging

import pytest

from atto.agents import Agent
from atto.protocol import codec
from atto.protocol.events import RunFailed
from atto.testing.model_dialect import Said
from atto.testing.model_server import ModelServer, Reply
from tests.models.anthropic_dialect import AnthropicDialect
from tests.models.chat_dialect import ChatDialect
from tests.models.gemini_dialect import GeminiDialect
from tests.models.responses_dialect import ResponsesDialect

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture
async def server():
    async with ModelServer() as running:
        yield running


def echo(request):
    """Refuses, and repeats all that it was sent."""
    body = {"error": {"message": json.dumps(request.headers), "type": "authentication_error"}}
    return Reply.of(json.dumps(body).encode(), status=401, content_type="application/json")


@pytest.mark.parametrize("dialect", [ChatDialect, ResponsesDialect, AnthropicDialect, GeminiDialect])
async def test_a_key_is_sent_and_never_told(dialect, server, worker, client, caplog):
    speaks = dialect()
    model = speaks.make_model(server.url, api_key=KEY)
    server.reply(*speaks.answer(Said(("hello",))))
    server.respond = echo
    with caplog.at_level(logging.DEBUG):
        async with worker(Agent("canary", model)) as running:
            answered = [event async for event in client.run("s", "hi")]
            failed = [event async for event in client.run("s", "again")]
            shown = f"{model!r} {running!r} {running.usage!r}"
    assert any(KEY in value for request in server.requests for value in request.headers.values())
    assert isinstance(failed[-1], RunFailed)
    for told in (*map(codec.encode, [*answered, *failed]), shown.encode(), caplog.text.encode()):
        assert KEY.encode() not in told
