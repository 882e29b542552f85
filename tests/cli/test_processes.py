"""`atto worker --processes N`: the parent keeps its worker processes, and answers for them."""

import asyncio
import json
import os
import re
import signal
from pathlib import Path

import pytest

from atto.broker.server import EmbeddedBroker
from tests.cli.commands import PATIENCE, atto, background, called, free_port, probe, until_ready

AGENT = """
from atto import Agent
from atto.models import ScriptedModel
agent = Agent("tester", ScriptedModel.of("Hello."))
"""


@pytest.mark.leaves_consumers  # one process is killed
async def test_a_process_that_died_is_started_again_and_all_drain(
    broker: EmbeddedBroker, namespace: str, tmp_path: Path
):
    (tmp_path / "app.py").write_text(AGENT)
    env = {"ATTO_NATS": broker.url, "ATTO_NAMESPACE": namespace}
    port = free_port()
    arguments = ("worker", "app:agent", "--processes", "2", "--health-port", str(port))
    async with background(*arguments, cwd=tmp_path, **env) as parent:
        await until_ready(port)
        assert (await probe(port, "/healthz"))[0] == 200
        first = await _workers(tmp_path, env)
        assert len(first) == 2
        assert (await atto("run", "ann", "hi", cwd=tmp_path, **env)).out == "Hello.\n"

        victim = first.pop()
        os.kill(victim, signal.SIGKILL)
        line = await parent.until("ended with signal 9")
        assert str(victim) in line
        await until_ready(port, 503)
        await until_ready(port)
        async with asyncio.timeout(PATIENCE):
            while len(again := await _workers(tmp_path, env)) != 2 or victim in again:
                pass  # the dead one's key expires
        assert first < again

        parent.process.send_signal(signal.SIGTERM)
        assert await parent.ended() == 0
    assert not re.search("Traceback", "".join(parent.lines))
    for pid in again:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_what_no_process_can_do_ends_the_parent(tmp_path: Path):
    done = await atto("worker", "nowhere:agent", "--processes", "2", cwd=tmp_path)
    assert done.code == 2
    assert "nowhere" in done.err
    assert "Traceback" not in done.err


@pytest.mark.leaves_consumers
async def test_processes_drain_when_their_parent_is_killed(
    broker: EmbeddedBroker, namespace: str, tmp_path: Path
):
    (tmp_path / "app.py").write_text(AGENT)
    env = {"ATTO_NATS": broker.url, "ATTO_NAMESPACE": namespace}
    port = free_port()
    arguments = ("worker", "app:agent", "--processes", "2", "--health-port", str(port))
    async with background(*arguments, cwd=tmp_path, **env) as parent:
        await until_ready(port)
        assert len(await _workers(tmp_path, env)) == 2
        parent.process.kill()
        await parent.ended()  # once nobody holds its standard error any more
    assert "".join(parent.lines).count("drains") == 2
    assert await _workers(tmp_path, env) == set()


async def _workers(cwd: Path, env: dict[str, str]) -> set[int]:
    done = await called("workers", "--json", cwd=cwd, **env)
    assert done.code == 0, done.err
    return {json.loads(line)["pid"] for line in done.out.splitlines()}
