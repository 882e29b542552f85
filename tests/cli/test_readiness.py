"""What a supervisor hears of a real worker: before the broker is there, with it, without it, hanging."""

import signal
from pathlib import Path

from atto.broker.server import EmbeddedBroker
from tests.cli.commands import background, free_port, probe, until_ready

HANGING = """
import time
from atto import Agent, tool
from atto.models import ScriptedModel, call

@tool
async def hang() -> str:
    "Blocks the event loop, as no tool should."
    time.sleep(3)
    return "done"

def answer(request):
    return call("hang") if request.messages[-1].role == "user" else "done"

agent = Agent("tester", ScriptedModel(answer, repeat=True), tools=[hang])
"""


async def test_ready_is_who_is_connected(here: Path, tmp_path: Path):
    port, health = free_port(), free_port()
    data = tmp_path / "data"
    arguments = ("worker", "app:agent", "--nats", f"nats://127.0.0.1:{port}", "--connect-timeout", "30")
    async with background(*arguments, "--health-port", str(health), cwd=here) as worker:
        assert "not started yet" in await until_ready(health, 503)
        assert (await probe(health, "/healthz"))[0] == 200
        async with EmbeddedBroker(data, port=port):
            await until_ready(health)
        assert "not connected" in await until_ready(health, 503)
        assert (await probe(health, "/healthz"))[0] == 200
        async with EmbeddedBroker(data, port=port):
            await until_ready(health)
            worker.process.send_signal(signal.SIGTERM)
            assert await worker.ended() == 0


async def test_a_worker_whose_event_loop_is_blocked_is_not_healthy(env: dict[str, str], tmp_path: Path):
    (tmp_path / "app.py").write_text(HANGING)
    health = free_port()
    async with background("worker", "app:agent", "--health-port", str(health), cwd=tmp_path, **env) as worker:
        await until_ready(health)
        async with background("run", "ann", "hi", cwd=tmp_path, **env) as caller:
            status, reason = 200, ""
            while status == 200:
                status, reason = await probe(health, "/healthz")
            assert (status, "event loop" in reason) == (503, True)
            assert await caller.ended() == 0
        assert (await probe(health, "/healthz"))[0] == 200
        worker.process.send_signal(signal.SIGTERM)
        assert await worker.ended() == 0
