"""A real model, which llama.cpp serves: streamed, cut and counted by every adapter that its server speaks.

`just test-local` installs both, and runs this.
"""

import json
import os
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import jsonschema
import pytest

from atto.models import Anthropic, OpenAIChat, OpenAIResponses
from atto.models.assemble import Assembler
from atto.models.base import ModelRequest, TextChunk
from atto.protocol.messages import Message

pytestmark = [pytest.mark.local, pytest.mark.timeout(600)]

SERVER = Path(__file__).with_name("local_server.py")


@pytest.fixture(scope="module")
def address():
    """The model in a process of its own, which loads for some seconds."""
    with subprocess.Popen(
        [sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:"), url
        yield url
        process.stdin.close()
        process.terminate()


MAKERS = {
    "chat": lambda url: OpenAIChat("smollm2", base_url=f"{url}/v1"),
    "responses": lambda url: OpenAIResponses("smollm2", base_url=f"{url}/v1"),
    "anthropic": lambda url: Anthropic("smollm2", base_url=url),
}


@pytest.fixture(params=MAKERS)
async def model(request, address, monkeypatch):
    for name in os.environ:
        if name.startswith(("OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    made = MAKERS[request.param](address)
    yield made
    await made.aclose()


async def answer(model, **fields):
    fields = {"temperature": 0.0, "messages": (Message.user("What is the capital of France?"),), **fields}
    assembler = Assembler(model.origin)
    pieces = []
    async with aclosing(model.stream(ModelRequest(**fields))) as chunks:
        async for chunk in chunks:
            assembler.add(chunk)
            if isinstance(chunk, TextChunk):
                pieces.append(chunk.text)
    return assembler.finish(), pieces


async def test_an_answer_comes_in_pieces_and_is_counted(model):
    said, pieces = await answer(model, messages=(Message.user("Hello!"),), max_tokens=60)
    assert said.finish == "stop"
    assert len(pieces) > 2
    assert "".join(pieces) == said.message.text
    assert said.usage.input_tokens > 5
    assert len(list(filter(None, pieces))) <= said.usage.output_tokens <= 60


async def test_an_answer_is_cut_where_it_was_told_to(model):
    said, _ = await answer(model, messages=(Message.user("Tell me a long story."),), max_tokens=16)
    # llama.cpp says `completed` in the Responses API also where it cut
    assert said.finish == ("stop" if isinstance(model, OpenAIResponses) else "length")
    assert said.message.text
    assert said.usage.output_tokens == 16


async def test_a_conversation_goes_on(model):
    first, _ = await answer(model, max_tokens=60)
    history = (
        Message.user("What is the capital of France?"),
        first.message,
        Message.user("Say the name of that city once more."),
    )
    second, _ = await answer(model, messages=history, max_tokens=60)
    assert second.message.text
    assert second.usage.input_tokens > first.usage.input_tokens + 10


async def test_leaving_in_the_middle_lets_the_next_one_in(model):
    for _ in range(4):  # twice as many as the server has slots
        request = ModelRequest(messages=(Message.user("Count to a thousand."),), max_tokens=1500)
        async with aclosing(model.stream(request)) as chunks:
            async for chunk in chunks:
                if isinstance(chunk, TextChunk):
                    break
    said, _ = await answer(model, max_tokens=8)
    assert said.message.text


async def test_an_answer_by_a_schema(address):
    model = OpenAIChat("smollm2", base_url=f"{address}/v1")
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "big": {"type": "boolean"}},
        "required": ["city", "big"],
        "additionalProperties": False,
    }
    said, _ = await answer(model, output_schema=schema, max_tokens=200)
    await model.aclose()
    assert said.finish == "stop"
    jsonschema.validate(json.loads(said.message.text), schema)
