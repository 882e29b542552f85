"""Connections that are cancelled while they are made leave no socket, wherever that meets them."""

import asyncio
import socket
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from atto.models import Anthropic, Gemini, ModelRequest, OpenAIChat, OpenAIResponses
from atto.protocol.messages import Message

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts sockets in /proc")

MAKERS = {"chat": OpenAIChat, "responses": OpenAIResponses, "anthropic": Anthropic, "gemini": Gemini}


def open_sockets():
    found = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            found += str(descriptor.readlink()).startswith("socket:")
        except FileNotFoundError:  # the listing's own
            continue
    return found


async def settles_at(count):
    """A closed transport lets go of its socket some rounds of the loop later."""
    async with asyncio.timeout(30):
        while open_sockets() > count:
            await asyncio.sleep(0.01)


async def use(model):
    async with aclosing(model.stream(ModelRequest(messages=(Message.user("hi"),)))) as chunks:
        async for _ in chunks:
            pass


async def cancelled(model, *, many, rounds):
    tasks = [asyncio.create_task(use(model)) for _ in range(many)]
    for _ in range(rounds):
        await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
async def test_wherever_the_cancellation_meets_them(make):
    with socket.socket() as silent:  # the kernel takes connections, and nobody answers
        silent.bind(("127.0.0.1", 0))
        silent.listen(4096)
        model = make("m", api_key="k", base_url=f"http://127.0.0.1:{silent.getsockname()[1]}/v1")
        await cancelled(model, many=1, rounds=5)  # loads the SDK
        before = open_sockets()
        for rounds in range(60):
            await cancelled(model, many=2, rounds=rounds)
            await settles_at(before)
        await cancelled(model, many=500, rounds=30)
        await settles_at(before)
        await model.aclose()
