"""The examples run as a user runs them, their providers served on this machine."""

import asyncio
import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from atto.testing.model_dialect import Said, SaidCall
from atto.testing.model_server import ModelServer
from tests.models.anthropic_dialect import AnthropicDialect
from tests.models.chat_dialect import ChatDialect
from tests.models.gemini_dialect import GeminiDialect
from tests.models.responses_dialect import ResponsesDialect

EXAMPLES = Path(__file__).parent.parent / "examples"
KEY = "key-0123456789abcdef"


@pytest.fixture
async def server():
    async with ModelServer() as running:
        yield running


@pytest.fixture
def weather():
    """Open-Meteo, as far as the example asks it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = {"results": [{"name": "Oslo", "latitude": 59.9, "longitude": 10.7}]}
            current = {"current": {"temperature_2m": 21.5, "wind_speed_10m": 3}}
            body = json.dumps(found if self.path.startswith("/search") else current).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever).start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()


def answers(server, dialect, *said):
    for each in said:
        server.reply(*dialect.answer(each))


def calls(name, **arguments):
    return Said(calls=(SaidCall(f"call-{name}", name, (json.dumps(arguments),)),), finish="tool_calls")


async def output_of(example, *arguments, **environment):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, EXAMPLES / example, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,  # on a busy machine a warning may stand there
        env={"PATH": os.environ["PATH"], **environment},
    )
    async with asyncio.timeout(60):
        output, errors = (text.decode() for text in await process.communicate())
    assert process.returncode == 0, output + errors
    return output


async def test_gemini_agent(server, weather):
    answers(
        server,
        GeminiDialect(),
        calls("current_weather", city="Oslo"),
        Said(("It is 21.5 degrees", " in Oslo.")),
        Said(("Oslo.",)),
    )
    environment = {"WEATHER_URL": f"{weather}/forecast", "GEOCODING_URL": f"{weather}/search"}
    output = await output_of(
        "gemini_agent.py", GEMINI_API_KEY=KEY, GOOGLE_GEMINI_BASE_URL=server.url, **environment
    )
    assert "[current_weather {'city': 'Oslo'}] It is 21.5 degrees in Oslo." in output
    told = json.dumps(server.requests[1].body)
    assert "21.5" in told  # what the other server said
    assert len(server.requests) == 3


async def test_gemini_team(server):
    answers(
        server,
        GeminiDialect(),
        calls("guide", input="What to do in Rome?"),
        Said(("The museum.",)),
        calls("accountant", input="A museum"),
        calls("price_of", item="museum"),
        Said(("18 euros.",)),
        Said(("Go to the museum,", " for 18 euros.")),
    )
    output = await output_of("gemini_team.py", GEMINI_API_KEY=KEY, GOOGLE_GEMINI_BASE_URL=server.url)
    assert [line.split() for line in output.splitlines()] == [
        line.split()
        for line in (
            "coordinator asks guide: {'input': 'What to do in Rome?'}",
            "guide says The museum.",
            "coordinator asks accountant: {'input': 'A museum'}",
            "accountant asks price_of: {'item': 'museum'}",
            "accountant says 18 euros.",
            "coordinator says Go to the museum, for 18 euros.",
        )
    ]


@pytest.mark.parametrize(
    ("example", "dialect", "environment"),
    [
        ("openai_agent.py", ResponsesDialect, {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "{url}/v1"}),
        ("anthropic_agent.py", AnthropicDialect, {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": "{url}"}),
        ("ollama_agent.py", ChatDialect, {"OLLAMA_HOST": "{url}"}),
    ],
)
async def test_an_agent_of_another_provider(server, example, dialect, environment):
    answers(
        server,
        dialect(),
        calls("remind", what="call Ann", minutes=90),
        Said(("I will.",)),
        Said(("To call", " Ann.")),
    )
    output = await output_of(
        example, **{name: value.format(url=server.url) for name, value in environment.items()}
    )
    assert "[remind {'what': 'call Ann', 'minutes': 90}] I will.\n" in output
    assert "agent  To call Ann.\n" in output
    assert output.endswith("{'reminders': ['call Ann']}\n")
