"""The README's code runs, and its examples say what they promise."""

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import nats
import pytest

from atto import Agent, ScriptedModel
from atto.broker.server import EmbeddedBroker
from atto_client import Client
from atto_workers import Topology, Worker

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


async def run(*arguments: object, **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **environment},
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_the_tour(tmp_path: Path):
    script = tmp_path / "tour.py"
    script.write_text(SNIPPETS[0])
    assert (await run(script)).splitlines() == [
        "[get_weather {'city': 'Oslo'}]",
        "It is sunny in Oslo.",
        "committed as version 1",
        "{'last_city': 'Oslo'}",
    ]


async def test_the_cluster(tmp_path: Path):
    async with EmbeddedBroker() as broker:
        files = []
        for name, snippet in zip(("worker.py", "caller.py"), SNIPPETS[1:], strict=True):
            assert snippet.startswith(f"# {name}\n")
            files.append(tmp_path / name)
            files[-1].write_text(snippet.replace("nats://127.0.0.1:4222", broker.url))
        workers = [await asyncio.create_subprocess_exec(sys.executable, files[0]) for _ in range(2)]
        try:
            async with asyncio.timeout(30):
                while "declared" not in await declared(broker.url):
                    pass
                assert await run(files[1]) == "you said: hi"
                await polyglot(broker.url)
        finally:
            for worker in workers:
                worker.terminate()
            assert [await worker.wait() for worker in workers] == [0, 0]


async def declared(url: str) -> str:
    connection = await nats.connect(url)
    try:
        await connection.jetstream().stream_info("atto-DEAD")
    except nats.js.errors.NotFoundError:
        return "not yet"
    finally:
        await connection.close()
    return "declared"


async def polyglot(url: str) -> None:
    """What the README's `nats pub` and `nats sub` do, in their words."""
    [(subject, body)] = re.findall(r"nats pub (\S+) '(.*)'", README)
    [events] = re.findall(r"nats sub '(.*)'", README)
    connection = await nats.connect(url)
    heard = await connection.subscribe(events)
    await connection.publish(subject, body.encode())
    said: list[dict] = []
    while not said or said[-1]["type"] != "run_completed":
        said += json.loads((await heard.next_msg(timeout=10)).data)["events"]
    assert said[-1]["message"]["content"] == [{"type": "text", "text": "you said: hi"}]
    await connection.close()


async def test_the_operators_snippet(tmp_path: Path):
    page = (ROOT / "docs" / "operations.md").read_text()
    [snippet] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    async with EmbeddedBroker() as broker:
        agent = Agent("echo", ScriptedModel.of(lambda _: "hi"))
        async with (
            Worker(agent, nats=broker.url, topology=Topology(partitions=1)),
            Client(broker.url) as client,
        ):
            connection = await nats.connect(broker.url)
            await connection.jetstream().publish("atto.turn.ann", b"not JSON")
            await connection.close()
            await client.run("ann", "hi").result()
            script = tmp_path / "letters.py"
            script.write_text(snippet.replace("nats://127.0.0.1:4222", broker.url))
            assert "1 invalid_turn turn is not valid" in await run(script)


async def test_the_quickstart_streams_a_conversation():
    output = await run(ROOT / "examples" / "quickstart.py")
    assert "[get_weather {'city': 'Oslo'}] The weather report says: Oslo: sunny" in output
    assert "version 2: 8 messages, state {'cities': ['Oslo', 'Rome']}" in output


async def test_the_quickstart_takes_questions():
    output = await run(ROOT / "examples" / "quickstart.py", "What about Paris?")
    assert "Paris: sunny" in output
    assert "version 1: 4 messages" in output


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)(.*?)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
