"""The programs of the documentation run, and it can be built without a warning."""

import asyncio
import json
import os
import re
import socket
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from atto import Agent, ScriptedModel
from atto.broker.server import EmbeddedBroker
from atto.models import FinishChunk, TextChunk, UsageChunk
from atto.protocol.messages import Usage
from atto_client import Client
from atto_workers import Runtime

ROOT = Path(__file__).parent.parent
NAMES = ("tutorial.md", "agents.md", "models.md", "calling.md", "testing.md", "observing.md", "deploy.md")
PAGES = [(ROOT / "docs" / name).read_text() for name in NAMES]
PROGRAMS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", "".join(PAGES), re.DOTALL))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a reader has put all programs."""
    for name, code in PROGRAMS.items():
        (tmp_path / name).write_text(code)
    return tmp_path


async def output_of(directory: Path, *command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ["PATH"], "NO_MKDOCS_2_WARNING": "1"},
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (
            "talk.py",
            (
                "[get_weather {'city': 'Oslo'}]\nIt is sunny in Oslo.  (version 1)\n"
                "[get_weather {'city': 'Rome'}]\nIt is sunny in Rome.  (version 2)\n"
                "{'cities': ['Oslo', 'Rome']}\n"
            ),
        ),
        (
            "desk.py",
            ("Two lamps are on their way.\n{'orders': ['lamp']} there is no sofa; there are: lamp, chair\n"),
        ),
        (
            "team.py",
            (
                "weather: sunny, says the weather agent about: Oslo\n"
                "In Oslo it is sunny, says the weather agent about: Oslo.\n"
            ),
        ),
        ("trouble.py", "I could not pay: the card was declined.\nmodel_error\n4\n"),
        ("recent.py", "I see 1 messages\n" + 3 * "I see 3 messages\n"),
        ("calls.py", "2 parts 1\n"),
    ],
)
async def test_a_program_of_the_documentation(directory: Path, program: str, expected: str):
    assert await output_of(directory, sys.executable, program) == expected


async def test_the_tests_of_an_agent(directory: Path):
    [command] = re.findall(r"^pytest (.*)$", PAGES[NAMES.index("testing.md")], re.MULTILINE)
    assert "4 passed" in await output_of(directory, sys.executable, "-m", "pytest", *command.split())


async def test_a_page_is_told_what_was_said_and_goes_on_where_it_was(directory: Path):
    script = """
import asyncio

from atto import Agent, ScriptedModel
from atto_workers import Runtime
from sse import stream


async def main():
    async with Runtime(Agent("echo", ScriptedModel("one two", "three"))) as runtime:
        run = await runtime.submit("ann", "hi")
        print("".join([said async for said in stream(run)]))
        print("".join([said async for said in stream(runtime.attach("ann", run.run_id, after="1-2"))]))


asyncio.run(main())
"""
    (directory / "page.py").write_text(script)
    output = await output_of(directory, sys.executable, "page.py")
    said = re.findall(r'^id: 1-(\d+)\ndata: {"type":"(\w+)","seq":\1,', output, re.MULTILINE)
    assert said == [
        *[("2", "text_delta"), ("3", "text_delta"), ("5", "run_completed")],
        *[("3", "text_delta"), ("5", "run_completed")],
    ]


def test_the_web_page_of_the_documentation_is_python():
    compile(PROGRAMS["web.py"], "web.py", "exec")  # FastAPI is not needed for anything else here


async def test_what_the_models_of_all_runs_have_cost(directory: Path):
    script = directory / "bills.py"
    answer = [TextChunk("hi"), UsageChunk(Usage(3, 2)), FinishChunk("stop")]
    agent = Agent("echo", ScriptedModel(answer, repeat=True))
    usage = "{'input_tokens': 3, 'output_tokens': 2}"
    async with EmbeddedBroker() as broker, Runtime(agent, nats=broker.url) as runtime:
        script.write_text(PROGRAMS["bills.py"].replace("nats://127.0.0.1:4222", broker.url))
        await runtime.run("ann", "hi").result()
        assert await output_of(directory, sys.executable, "bills.py") == f"ann 1 {usage}\n"
        await runtime.run("bob", "hi").result()
        assert await output_of(directory, sys.executable, "bills.py") == f"bob 1 {usage}\n"


async def test_a_worker_of_a_program_of_its_own(directory: Path):
    log = directory / "log"
    async with EmbeddedBroker() as broker:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        environment = {
            "PATH": os.environ["PATH"],
            "ATTO_NATS": broker.url,
            "ATTO_HEALTH_PORT": port,
            "ATTO_HEALTH_HOST": "127.0.0.1",
        }
        with log.open("wb") as written:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "served.py"), cwd=directory, stderr=written, env=environment
            )
        try:
            async with asyncio.timeout(30), Client(broker.url) as client:
                while not await asyncio.to_thread(is_ready, port):
                    assert process.returncode is None, log.read_text()
                assert (await client.run("ann", "How is Oslo?").result()).text == "It is sunny in Oslo."
        finally:
            process.terminate()
            assert await process.wait() == 0, log.read_text()
    assert all(json.loads(line)["logger"].startswith("atto.") for line in log.read_text().splitlines())


def is_ready(port: str) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=3) as answer:
            return answer.status == 200
    except OSError:
        return False


async def test_a_trace_goes_from_the_caller_into_the_tool(directory: Path):
    script = """
import asyncio

import traced
from opentelemetry import trace

context = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))
with trace.use_span(trace.NonRecordingSpan(context)):
    asyncio.run(traced.main())
"""
    (directory / "caller.py").write_text(script)
    assert await output_of(directory, sys.executable, "caller.py") == "paid 5 in trace abc\n"


@pytest.mark.docs
async def test_the_documentation_is_built_without_a_warning(tmp_path: Path):
    await output_of(ROOT, sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path))
    assert "SessionBacklogFull" in (tmp_path / "reference" / "errors" / "index.html").read_text()
