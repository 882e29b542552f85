"""`atto dev` in a terminal, as a person uses it."""

import asyncio
import os
from pathlib import Path

from tests.cli.commands import ENTRY, PATIENCE, atto, environment
from tests.cli.terminal import CTRL_C, ENTER, terminal

AGENT = """
from atto import Agent, tool
from atto.models import ScriptedModel, Stall, TextChunk, call
from atto.models.base import FinishChunk

@tool
async def weather(city: str) -> str:
    "The weather of a city."
    return "sunny in " + city

def answer(request):
    said = request.messages[-1]
    text = "".join(part.text for part in said.content if hasattr(part, "text"))
    if said.role != "user":
        return "It is GREETING-ONE."
    if "weather" in text:
        return call("weather", city="Rome")
    if "wait" in text:
        return [TextChunk("FIRST-HALF "), Stall(), TextChunk("second half"), FinishChunk("stop")]
    return "GREETING-ONE to you."

agent = Agent("tester", ScriptedModel(answer, repeat=True), tools=[weather])
"""


async def test_a_conversation(tmp_path: Path):
    source = tmp_path / "app.py"
    source.write_text(AGENT)
    async with terminal("dev", "app:agent", cwd=tmp_path) as person:
        await person.until("you>")
        person.type(f"hello{ENTER}")
        await person.until("GREETING-ONE to you.")
        await person.until("you>")

        person.type(f"weather?{ENTER}")
        await person.until("weather(")
        await person.until("Rome")
        await person.until("It is GREETING-ONE.")
        await person.until("you>")

        # Ctrl-C ends the turn that streams, and not the program.
        person.type(f"wait{ENTER}")
        await person.until("FIRST-HALF")
        person.type(CTRL_C)
        await person.until("cancelled")
        await person.until("you>")
        person.type(f"hello{ENTER}")
        await person.until("GREETING-ONE to you.")
        await person.until("you>")

        # A changed file is a changed agent; one that cannot be loaded changes nothing.
        changed_at = source.stat().st_mtime
        source.write_text(AGENT.replace("GREETING-ONE", "GREETING-TWO"))
        os.utime(source, (changed_at, changed_at))  # as if both were written within a second
        await person.until("reloaded")
        person.type(f"hello{ENTER}")
        await person.until("GREETING-TWO to you.")
        await person.until("you>")
        source.write_text("nonsense nonsense")
        await person.until("not reloaded")
        person.type(f"hello{ENTER}")
        await person.until("GREETING-TWO to you.")
        await person.until("you>")

        # At the prompt Ctrl-C drops the line.
        person.type(f"hel{CTRL_C}")
        await person.until("you>")
        assert await person.left() == 0
        assert "Traceback" not in person.shown


async def test_text_is_shown_while_it_is_made(tmp_path: Path):
    (tmp_path / "app.py").write_text(AGENT)
    async with terminal("dev", "app:agent", cwd=tmp_path) as person:
        await person.until("you>")
        person.type(f"wait{ENTER}")
        await person.until("FIRST-HALF")
        assert "second half" not in person.shown
        person.type(CTRL_C)
        await person.until("you>")
        assert await person.left() == 0


async def test_what_comes_by_a_pipe_is_answered_on_stdout(tmp_path: Path):
    (tmp_path / "app.py").write_text(AGENT)
    process = await asyncio.create_subprocess_exec(
        *(ENTRY, "dev", "app:agent"),
        cwd=tmp_path,
        env=environment({}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate(b"hello\n")
    assert (process.returncode, out.decode()) == (0, "GREETING-ONE to you.\n"), err.decode()


async def test_by_a_pipe_nobody_mends_an_agent_that_cannot_be_loaded(tmp_path: Path):
    (tmp_path / "app.py").write_text("def (")
    done = await atto("dev", "app:agent", cwd=tmp_path)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("atto: cannot load 'app:agent': SyntaxError")
