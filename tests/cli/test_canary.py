"""Neither secrets nor what people and models say gets into a log or an error, at debug level either."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from atto.broker.server import EmbeddedBroker
from tests.cli.commands import atto, background, called

SECRET = "SECRET-CANARY"  # noqa: S105 - that is the point
AGENT = """
from atto import Agent, tool
from atto.models import ScriptedModel, call

@tool
async def look(what: str) -> str:
    "Looks."
    raise ValueError(f"no {what}")

def answer(request):
    last = request.messages[-1]
    if "break" in last.text:
        raise RuntimeError(f"cannot answer {last.text}")
    return call("look", what="ARGUMENT-CANARY") if last.role == "user" else "ANSWER-CANARY"

agent = Agent("tester", ScriptedModel(answer, repeat=True), instruction="INSTRUCTION-CANARY", tools=[look])
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_what_is_said_is_in_no_log(
    log_format: str, broker: EmbeddedBroker, namespace: str, tmp_path: Path
):
    (tmp_path / "app.py").write_text(AGENT)
    env = {"ATTO_NATS": broker.url, "ATTO_NAMESPACE": namespace}
    flags = ("--log-level", "debug", "--log-format", log_format)
    async with background("worker", "app:agent", *flags, cwd=tmp_path, **env) as worker:
        await worker.until("owns 64 partitions")
        done = await called("run", "ann", "PROMPT-CANARY", "--json", cwd=tmp_path, **env)
        assert (done.code, "ANSWER-CANARY" in done.out) == (0, True), done
        done = await called("run", "ann", "break PROMPT-CANARY", "--json", cwd=tmp_path, **env)
        assert done.code == 1
        await worker.until("RuntimeError")
        worker.process.send_signal(signal.SIGTERM)
        assert await worker.ended() == 0
    text = "".join(worker.lines)
    assert "ValueError" in text
    assert "CANARY" not in text
    if log_format == "json":
        lines = [json.loads(line) for line in worker.lines]
        [failure] = [line for line in lines if "RuntimeError" in line.get("exception", "")]
        assert failure["session"] == "ann"
        assert failure["attempt"] == 1
        assert {"run", "partition"} <= failure.keys()


async def test_a_password_is_in_no_log_and_no_error(tmp_path: Path):
    (tmp_path / "app.py").write_text(
        "from atto import Agent\nfrom atto.models import ScriptedModel\n"
        "agent = Agent('tester', ScriptedModel.of('Hello.'))\n"
    )
    config = f'authorization {{ user: ann, password: "{SECRET}" }}'
    async with EmbeddedBroker(config=config) as broker:
        bare = broker.url.removeprefix("nats://")
        inline = {"ATTO_NATS": f"nats://ann:{SECRET}@{bare}"}
        apart = {"ATTO_NATS": broker.url, "ATTO_USER": "ann", "ATTO_PASSWORD": SECRET}
        for env in (inline, apart):
            async with background(
                "worker", "app:agent", "--log-level", "debug", cwd=tmp_path, **env
            ) as worker:
                await worker.until("owns 64 partitions")
                done = await atto("run", "ann", "hi", "--debug", cwd=tmp_path, **env)
                assert (done.code, done.out) == (0, "Hello.\n"), done.err
                worker.process.send_signal(signal.SIGTERM)
                assert await worker.ended() == 0
            assert SECRET not in "".join(worker.lines) + done.err
        wrong = {"ATTO_NATS": f"nats://ann:WRONG-CANARY@{bare}"}
        commands = (("worker", "app:agent", "--log-level", "debug"), ("run", "a", "b"), ("doctor",))
        for done in await asyncio.gather(*(atto(*command, cwd=tmp_path, **wrong) for command in commands)):
            assert done.code == 3, done
            assert "CANARY" not in done.out + done.err


@pytest.mark.parametrize("flags", [(), ("--json",)])
async def test_a_password_in_a_store_url_is_not_repeated(flags: tuple[str, ...], tmp_path: Path):
    url = f"postgres://ann:{SECRET}@127.0.0.1:1/db"
    done = await called("sessions", "ls", "--store", url, *flags, cwd=tmp_path)
    assert done.code == 5, done
    assert SECRET not in done.out + done.err


async def test_help_does_not_show_what_the_environment_holds(tmp_path: Path):
    done = await called(
        "worker", "--help", cwd=tmp_path, ATTO_PASSWORD=SECRET, ATTO_STORE=f"postgres://a:{SECRET}@b/c"
    )
    assert done.code == 0
    assert SECRET not in done.out + done.err
