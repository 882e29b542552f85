"""`pause_turn`: the provider wants to be asked again, with what it said so far."""

import pytest

from atto.models import Anthropic, Assembler, ModelRequest
from atto.models.anthropic import MAX_PAUSES
from atto.protocol.errors import ModelError
from atto.protocol.messages import Message
from atto.testing.model_server import ModelServer

from .anthropic_payloads import ended, say, started, stream

SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "lamps"}}


def searched(*, container=None):
    begun = {"type": "content_block_start", "index": 1, "content_block": SEARCH}
    stop = {"type": "content_block_stop", "index": 1}
    begin, *rest = [started(), *say(0, "Let me search. "), begun, stop, *ended("pause_turn")]
    if container:
        begin["message"]["container"] = {"id": container}
    return stream(begin, *rest)


async def answer(server):
    model = Anthropic("claude", api_key="sk-canary-0123456789", base_url=server.url)
    assembler = Assembler()
    async for chunk in model.stream(ModelRequest(messages=(Message.user("What do lamps cost?"),))):
        assembler.add(chunk)
    await model.aclose()
    return assembler.finish()


async def test_a_paused_turn_goes_on_with_what_it_said():
    async with ModelServer() as server:
        server.reply(*searched(container="c1"))
        server.reply(*searched())
        server.reply(*stream(started(), *say(0, "They cost 20."), *ended("end_turn")))
        assembled = await answer(server)
    first, second, third = (request.body for request in server.requests)
    assert assembled.message.text == "Let me search. Let me search. They cost 20."
    assert assembled.finish == "stop"
    blocks = [{"type": "text", "text": "Let me search. "}, SEARCH]
    assert second["messages"] == [*first["messages"], {"role": "assistant", "content": blocks}]
    assert third["messages"] == [*first["messages"], {"role": "assistant", "content": [*blocks, *blocks]}]
    assert ("container" in first, second["container"], third["container"]) == (False, "c1", "c1")
    assert [part.native for part in assembled.message.content if part.native] == [SEARCH, SEARCH]


async def test_what_each_part_cost_is_added_up():
    async with ModelServer() as server:
        server.reply(*searched())
        server.reply(*stream(started(), *say(0, "20."), *ended("end_turn")))
        paused = await answer(server)
        server.reply(*stream(started(), *say(0, "20."), *ended("end_turn")))
        whole = await answer(server)
    assert paused.usage == whole.usage + whole.usage


async def test_pauses_are_bounded():
    async with ModelServer() as server:
        for _ in range(MAX_PAUSES + 1):
            server.reply(*searched())
        with pytest.raises(ModelError, match="paused its turn more than") as caught:
            await answer(server)
    assert not caught.value.transient
    assert len(server.requests) == MAX_PAUSES + 1
