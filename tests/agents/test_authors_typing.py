"""What an author's type checker sees."""

import subprocess
import sys

SCRIPT = """
from collections.abc import Mapping
from typing import Any, assert_type

from atto.agents import Agent, Tool, ToolContext, tool
from atto.models.base import Model


@tool
def add(x: int, y: int = 1) -> int:
    return x + y


@tool(timeout=5, parallel=False)
async def look_up(word: str, context: ToolContext) -> str:
    return word + context.state["suffix"]


def plain(n: int) -> list[int]:
    return [n]


assert_type(add(1, y=2), int)
assert_type(tool(plain)(1), list[int])


async def use(context: ToolContext) -> None:
    assert_type(await look_up("x", context=context), str)
    await add.call({"x": 1}, context)


def instruction(state: Mapping[str, Any]) -> str:
    return "Help " + state["name"]


async def instruction_later(state: Mapping[str, Any]) -> str:
    return "Help"


def agents(model: Model) -> None:
    agent = Agent("a", model, "Help.", tools=[add, look_up, plain], temperature=0.5, stop=["END"])
    Agent("b", "openai:gpt-5", instruction, fallbacks=["anthropic:claude", model])
    assert_type(agent.model, Model)
    Agent("c", model, instruction_later, (add,))
    assert_type(agent.tool("add"), Tool[..., Any] | None)


def wrong(model: Model) -> None:
    add("1")  # expect: "1" is no int
    add(1, z=2)  # expect: no parameter z
    tool(timeout="5")  # expect: seconds are a number
    Agent("d", 5)  # expect: a model is no number
    Agent("e", model, max_steps="3")  # expect: a number
    Agent("f", model, lambda state: 1)  # expect: instructions are text
    Agent("g", model).name = "h"  # expect: immutable
"""


def test_an_author_is_told_of_mistakes_and_of_nothing_else(tmp_path):
    path = tmp_path / "author.py"
    path.write_text(SCRIPT)
    (tmp_path / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--project", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    expected = {number for number, line in enumerate(SCRIPT.splitlines(), 1) if "# expect:" in line}
    reported = {
        int(line.split(":")[1])
        for line in done.stdout.splitlines()
        if ": error:" in line or " - error:" in line
    }
    assert reported == expected, done.stdout + done.stderr
