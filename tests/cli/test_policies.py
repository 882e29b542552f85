"""`atto worker --models`: how models are treated, by a variable of the agent's module."""

import asyncio
from pathlib import Path

import pytest

from tests.cli.commands import atto, background

APP = """
from pathlib import Path
from atto import Agent
from atto.models import ScriptedModel
from atto.protocol.errors import ModelError
from atto_workers import ModelPolicy, RetryPolicy

def fail(request):
    with Path("asked").open("a") as asked:
        asked.write("once\\n")
    raise ModelError("busy", transient=True)

agent = Agent("tester", ScriptedModel.of(fail))
once = ModelPolicy(retries=RetryPolicy(tries=1))
mapped = {"openai:*": once, "*": 5}
"""


async def test_the_policy_that_is_named_rules(env: dict[str, str], tmp_path: Path):
    (tmp_path / "app.py").write_text(APP)
    async with background("worker", "app:agent", "--models", "app:once", cwd=tmp_path, **env) as worker:
        await worker.until("owns")
        async with asyncio.timeout(30):
            done = await atto("run", "ann", "hi", cwd=tmp_path, **env)
        worker.process.terminate()
        assert await worker.ended() == 0
    assert (done.code, "busy" in done.out + done.err) == (1, True)
    assert (tmp_path / "asked").read_text() == "once\n"  # and not five times, as by default


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("app:agent", "says not how models are treated"),
        ("app:mapped", "maps '*' to an object of type int"),
        ("app:none", "cannot load"),
        ("app", "module:variable"),
    ],
)
async def test_what_is_no_policy_is_told(env: dict[str, str], tmp_path: Path, named: str, said: str):
    (tmp_path / "app.py").write_text(APP)
    done = await atto("worker", "app:agent", "--models", named, cwd=tmp_path, **env)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert said in done.err
