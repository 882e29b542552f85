"""What can be said of agents as tools before any runs."""

import pytest

from atto import Agent, ScriptedModel
from atto.agents.delegation import MAX_DELEGATION
from atto.protocol.errors import InvalidAgent, InvalidTool, ToolArgumentsInvalid, ToolFailed


def agent(name="weather", *tools):
    return Agent(name, ScriptedModel("hi"), tools=tools, description=f"Knows {name}.")


def test_an_agent_as_a_tool_is_named_and_described_as_it_is_or_otherwise():
    assert (agent().as_tool().spec.name, agent().as_tool().spec.description) == ("weather", "Knows weather.")
    other = agent().as_tool(name="ask_weather", description="Ask it.").spec
    assert (other.name, other.description) == ("ask_weather", "Ask it.")
    assert Agent("plain", ScriptedModel("hi")).as_tool().spec.description == "Asks the agent plain."
    with pytest.raises(InvalidTool):
        agent().as_tool(name="two words")
    with pytest.raises(InvalidTool):
        agent().as_tool(timeout=0)


def test_an_agent_is_asked_in_words():
    asked = agent().as_tool()
    assert asked.spec.parameters["properties"]["input"]["type"] == "string"
    assert asked.question({"input": "Oslo"}) == "Oslo"
    for wrong in ({}, {"input": 5}, {"input": "Oslo", "more": 1}):
        with pytest.raises(ToolArgumentsInvalid):
            asked.question(wrong)


async def test_an_agent_cannot_be_asked_outside_a_run():
    with pytest.raises(ToolFailed, match="by a run only"):
        await agent().as_tool()("Oslo")


def test_agents_may_delegate_a_few_levels_deep():
    deepest = agent("a0")
    for level in range(1, MAX_DELEGATION + 1):
        deepest = agent(f"a{level}", deepest.as_tool())
    assert deepest.delegation_depth == MAX_DELEGATION
    with pytest.raises(InvalidAgent, match="levels deep"):
        agent("too_deep", deepest.as_tool())


def test_the_models_of_all_agents_that_may_be_asked_are_known_each_once():
    models = [ScriptedModel("hi") for _ in range(4)]
    deepest = Agent("deepest", models[0], fallbacks=[models[1]])
    middle = Agent("middle", models[2], tools=[deepest.as_tool()])
    top = Agent("top", models[3], tools=[middle.as_tool(), deepest.as_tool()], fallbacks=[models[0]])
    assert sorted(map(id, top.all_models)) == sorted(map(id, models))
    assert top.models == (models[3], models[0])


def test_two_agents_of_one_name_need_different_names_as_tools():
    with pytest.raises(InvalidTool, match="rename"):
        agent("boss", agent().as_tool(), agent().as_tool())
    assert agent("boss", agent().as_tool(), agent().as_tool(name="other")).tool("other") is not None
