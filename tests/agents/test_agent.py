import ast
import dataclasses
import inspect
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from atto.agents import Agent, Tool, tool
from atto.models.base import Chunk, FinishChunk, ModelRequest
from atto.protocol.errors import InvalidAgent, InvalidTool
from atto.protocol.messages import Origin


class Silent:
    """A model that says nothing."""

    origin = Origin("test", "silent")

    async def stream(self, request: ModelRequest) -> AsyncIterator[Chunk]:
        yield FinishChunk("stop")


MODEL = Silent()


@tool
def add(x: int) -> int:
    """Adds."""
    return x


def subtract(x: int) -> int:
    """Subtracts."""
    return -x


def no_annotation(x):
    return x


def test_an_agent_has_the_defaults_of_the_documentation():
    agent = Agent("helper", MODEL)
    assert (agent.instruction, agent.tools, agent.specs, agent.stop) == ("", (), (), ())
    assert (agent.temperature, agent.max_tokens, agent.max_steps) == (None, None, 10)
    assert (agent.parallel_tool_calls, agent.output_schema, agent.options, agent.description) == (
        True,
        None,
        {},
        "",
    )


def test_functions_become_tools_and_are_found_by_name():
    agent = Agent("helper", MODEL, "Help.", [add, subtract])
    assert [spec.name for spec in agent.specs] == ["add", "subtract"]
    assert agent.specs is agent.specs
    assert agent.tool("add") is add
    made = agent.tool("subtract")
    assert isinstance(made, Tool)
    assert agent.tools == (add, made)
    assert agent.tool("multiply") is None


def test_an_agent_does_not_change_after_it_was_made():
    tools, stop, options = [add], ["END"], {"seed": {"n": 1}}
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    agent = Agent("helper", MODEL, tools=tools, stop=stop, options=options, output_schema=schema)
    tools.append(subtract)
    stop.append("STOP")
    options["seed"]["n"] = 2
    schema["properties"]["x"] = {}
    assert agent.tools == (add,)
    assert agent.stop == ("END",)
    assert agent.options == {"seed": {"n": 1}}
    assert agent.output_schema == {"type": "object", "properties": {}}
    with pytest.raises(dataclasses.FrozenInstanceError):
        agent.max_steps = 1  # type: ignore[misc]


async def test_the_instruction_is_text_or_made_from_the_state():
    def sync(state: Mapping[str, Any]) -> str:
        return f"Help {state['name']}."

    async def later(state: Mapping[str, Any]) -> str:
        return f"Help {state.get('name')}."

    state = {"name": "Ann"}
    assert await Agent("helper", MODEL, "Help.").instruct(state) == "Help."
    assert await Agent("helper", MODEL, sync).instruct(state) == "Help Ann."
    assert await Agent("helper", MODEL, later).instruct(state) == "Help Ann."


async def test_an_instruction_function_cannot_change_the_state():
    def write(state: Any) -> str:
        state["name"] = "Bob"
        return ""

    def mutate(state: Any) -> str:
        state["cart"].append("milk")
        return ",".join(state["cart"])

    state: dict[str, Any] = {"name": "Ann", "cart": ["tea"]}
    with pytest.raises(TypeError, match="does not support item assignment"):
        await Agent("helper", MODEL, write).instruct(state)
    agent = Agent("helper", MODEL, mutate)
    assert await agent.instruct(state) == "tea,milk"
    assert await agent.instruct(state) == "tea,milk"
    assert state == {"name": "Ann", "cart": ["tea"]}


async def test_what_the_instruction_function_raises_passes():
    def fail(state: Mapping[str, Any]) -> str:
        return state["missing"]

    with pytest.raises(KeyError, match="missing"):
        await Agent("helper", MODEL, fail).instruct({})


async def test_an_instruction_that_is_no_text_is_refused():
    agent = Agent("helper", MODEL, lambda state: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(
        InvalidAgent, match="agent 'helper': its instruction function returned a NoneType, not a str"
    ):
        await agent.instruct({})


def second_add() -> None:
    pass


@pytest.mark.parametrize(
    ("changed", "error", "fragment"),
    [
        ({"name": ""}, InvalidAgent, "agent name '': use 1 to 64 of the characters"),
        ({"name": "my agent"}, InvalidAgent, "agent name 'my agent'"),
        ({"name": "x" * 65}, InvalidAgent, "use 1 to 64"),
        ({"name": None}, InvalidAgent, "agent name None"),
        (
            {"model": "opneai:gpt"},
            InvalidAgent,
            "agent 'helper': the model 'opneai:gpt': nobody is called 'opneai' here; did you mean 'openai'?",
        ),
        ({"model": Silent}, InvalidAgent, "its model is the class Silent: pass an object, `Silent(...)`"),
        ({"model": None}, InvalidAgent, "its model is a NoneType: pass a `Model`"),
        ({"instruction": 1}, InvalidAgent, "its instruction must be a str, or a function"),
        ({"max_steps": 0}, InvalidAgent, "max_steps is 0: a run needs at least 1"),
        ({"max_tokens": 0}, InvalidAgent, "max_tokens is 0"),
        ({"stop": "END"}, InvalidAgent, "stop is the string 'END': give a sequence, as in `('END',)`"),
        ({"tools": add}, InvalidAgent, "its tools are a single function: give a sequence"),
        ({"output_schema": {"type": "array"}}, InvalidAgent, "output_schema: its schema needs"),
        (
            {"output_schema": {"type": "object", "minProperties": "x"}},
            InvalidAgent,
            "output_schema: its schema is not valid",
        ),
        (
            {"tools": [add, tool(name="add")(second_add)]},
            InvalidTool,
            "agent 'helper': two tools are called 'add': rename one",
        ),
        ({"tools": [no_annotation]}, InvalidTool, "`x` has no annotation"),
        ({"tools": ["add"]}, InvalidTool, "'add' is not a function"),
    ],
)
def test_an_agent_that_cannot_work_is_refused_with_the_mend(changed, error, fragment):
    with pytest.raises(error, match=re.escape(fragment)):
        Agent(**{"name": "helper", "model": MODEL, **changed})


def test_models_can_be_named(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-0123456789")
    agent = Agent("helper", "openai:gpt-5", fallbacks=["ollama:llama3:8b", MODEL])
    assert agent.model.origin == Origin("openai", "gpt-5")
    assert [model.origin.model for model in agent.models] == ["gpt-5", "llama3:8b", MODEL.origin.model]
    assert dataclasses.replace(agent, name="other").model is agent.model


def test_a_named_model_without_a_key_is_refused(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(InvalidAgent, match="agent 'helper': OpenAIResponses has no key: set OPENAI_API_KEY"):
        Agent("helper", "openai:gpt-5")


def test_what_type_checkers_see_is_what_is_taken():
    (stub,) = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(Agent)))
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    ]
    seen = [argument.arg for argument in (*stub.args.args, *stub.args.kwonlyargs)]
    assert seen == [*inspect.signature(Agent.__init__).parameters]


def test_a_name_may_have_64_characters():
    assert Agent("a-Z_9" + "x" * 59, MODEL).name == "a-Z_9" + "x" * 59
