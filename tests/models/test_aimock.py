"""Every adapter against aimock, a server of others' making that speaks the providers' APIs, with its faults.

It is installed once, into `.cache/aimock`, with npm.
"""

import asyncio
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from atto import models
from atto.models import ModelRequest, ToolSpec
from atto.protocol.errors import ModelError
from atto.protocol.messages import Message, ToolResultPart

from .conftest import KEY

pytestmark = pytest.mark.aimock

PACKAGE = "@copilotkit/aimock@1.43.0"
PLACE = Path(__file__).parents[2] / ".cache" / "aimock"
BINARY = PLACE / "node_modules" / ".bin" / "llmock"
PATHS = {"OpenAIChat": "/v1", "OpenAIResponses": "/v1", "Anthropic": "", "Gemini": "/v1beta"}

WEATHER = ToolSpec("weather", "The weather of a city.", {"type": "object", "properties": {"city": {}}})
LONG = "a long answer that is not told to its end, since something happens"


def said(word, response, **fields):
    return {"match": {"userMessage": word}, "response": response, **fields}


def refused(word, status, **fields):
    return said(word, {"error": {"message": f"no: {word}", "type": "error"}, "status": status, **fields})


CALLS = [{"name": "weather", "arguments": {"city": city}} for city in ("Rome", "Oslo")]
FIXTURES = [
    {
        "match": {"userMessage": "weather", "hasToolResult": False},
        "response": {"content": "One moment.", "toolCalls": CALLS},
    },
    {
        "match": {"userMessage": "weather", "hasToolResult": True},
        "response": {"content": "Sunny in Rome, rain in Oslo: 🎉"},
    },
    said("think", {"content": "Forty-two.", "reasoning": "let me see"}),
    refused("too many", 429, retryAfter=7),
    refused("overloaded", 529),
    refused("wrong", 400),
    said("truncate", {"content": LONG}, truncateAfterChunks=3),
    said("disconnect", {"content": LONG}, latency=20, disconnectAfterMs=70),
    said("stall", {"content": LONG}, streamingProfile={"ttft": 0, "tps": 0.01}),
    said("malformed", {"content": LONG}, chaos={"malformedRate": 1}),
    said("drop", {"content": LONG}, chaos={"dropRate": 1}),
    said("hang up", {"content": LONG}, chaos={"disconnectRate": 1}),
]


@pytest.fixture(scope="module")
def binary():
    if not BINARY.exists():
        _install()
    return BINARY


def _install():
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("NOT TESTED against aimock: node and npm are not installed")
    command = ["npm", "install", "--prefix", str(PLACE), "--no-fund", "--no-audit", PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("NOT TESTED against aimock: npm did not install it in 90 s")
    if done.returncode:
        pytest.skip(f"NOT TESTED against aimock: npm failed: {done.stderr[-300:]}")


@pytest.fixture(scope="module")
async def aimock(binary, tmp_path_factory):
    fixtures = tmp_path_factory.mktemp("aimock") / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}))
    process = await asyncio.create_subprocess_exec(
        "node",
        str(binary),
        *("--port", "0", "--host", "127.0.0.1", "--fixtures", str(fixtures), "--chunk-size", "8"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    listening = asyncio.create_task(_url(process.stdout))
    try:
        async with asyncio.timeout(20):
            url = await asyncio.shield(listening)
        reading = asyncio.create_task(process.stdout.read())  # a full pipe would hold it up
        yield url
    finally:
        listening.cancel()
        process.kill()
        await process.wait()
    await reading


async def _url(output):
    text = ""
    while not (found := re.search(r"listening on (http://\S+)", text)):
        line = await output.readline()
        assert line, f"aimock ended: {text}"
        text += line.decode()
    return found[1]


@pytest.fixture(params=PATHS)
def adapter(request):
    if request.param not in models.__all__:
        pytest.skip(f"{request.param} is not in this release")
    return request.param


@pytest.fixture
async def model(aimock, adapter):
    made = getattr(models, adapter)(
        "a-model", api_key=KEY, base_url=aimock + PATHS[adapter], read_timeout=0.5
    )
    yield made
    await made.aclose()


def asking(*messages):
    return ModelRequest(messages=messages, tools=(WEATHER,), instruction="Be brief.")


async def test_a_tool_round_trip(model, ask):
    question = Message.user("what is the weather?")
    first = await ask(model, asking(question))
    rome, oslo = first.message.tool_calls
    assert (first.message.text, first.finish) == ("One moment.", "tool_calls")
    assert [(call.name, call.arguments) for call in (rome, oslo)] == [
        ("weather", {"city": "Rome"}),
        ("weather", {"city": "Oslo"}),
    ]
    results = tuple(
        ToolResultPart(call.id, call.name, text) for call, text in ((rome, "sun"), (oslo, "rain"))
    )
    second = await ask(model, asking(question, first.message, Message("tool", results)))
    assert (second.message.text, second.finish) == ("Sunny in Rome, rain in Oslo: 🎉", "stop")
    third = await ask(
        model,
        asking(question, first.message, Message("tool", results), second.message, Message.user("think")),
    )
    assert third.message.text == "Forty-two."


async def test_reasoning(model, ask):
    answer = (await ask(model, asking(Message.user("think")))).message
    assert answer.text == "Forty-two."
    assert "".join(getattr(part, "text", "") for part in answer.content[:-1]) == "let me see"


async def test_streams_side_by_side(model, ask):
    answers = await asyncio.gather(*(ask(model, asking(Message.user("think"))) for _ in range(50)))
    assert {answer.message.text for answer in answers} == {"Forty-two."}


@pytest.mark.parametrize(
    ("word", "transient", "status", "retry_after"),
    [("too many", True, 429, 7.0), ("overloaded", True, 529, None), ("wrong", False, 400, None)],
)
async def test_refusals(model, ask, word, transient, status, retry_after):
    error = await _failure(model, ask, word)
    assert (error.transient, error.status, error.retry_after) == (transient, status, retry_after)
    assert f"no: {word}" in str(error)


@pytest.mark.parametrize("word", ["truncate", "disconnect", "stall", "malformed", "drop", "hang up"])
async def test_faults_are_transient_errors_and_leave_nothing_behind(model, ask, word):
    assert (await _failure(model, ask, word)).transient
    assert (await ask(model, asking(Message.user("think")))).message.text == "Forty-two."


async def _failure(model, ask, word):
    with pytest.raises(ModelError) as caught:
        await ask(model, asking(Message.user(word)))
    assert KEY not in str(caught.value)
    return caught.value
