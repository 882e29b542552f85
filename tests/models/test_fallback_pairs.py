"""Pairs of models in a runtime: one fails within a tool loop, its fallback goes on, and it comes back."""

import pytest

from atto import Agent, events, tool
from atto.testing.model_dialect import Said, SaidCall
from atto.testing.providers import RuleServer
from atto_client import RunFailed
from atto_workers import ModelPolicy, RetryPolicy, Runtime

from .families import FAMILIES, before

RING = [*zip(FAMILIES, [*list(FAMILIES)[1:], next(iter(FAMILIES))], strict=True)]
PAIRS = [*RING, *((second, first) for first, second in RING)]


@tool(read_only=True)
def stock(item: str) -> str:
    """How many there are."""
    return f"3 of {item}"


def step(item):
    return Said(("Wait.",), reasoning=("hm",), calls=(SaidCall("", "stock", (f'{{"item":"{item}"}}',)),))


async def answered(runtime, text):
    async for event in await runtime.submit("ann", text):
        if isinstance(event, events.RunCompleted | events.RunFailed):
            return event
    raise RunFailed("the run has no end")


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=["-to-".join(pair) for pair in PAIRS])
async def test_a_fallback_goes_on_and_the_model_comes_back(first, second):
    async with RuleServer() as server, before(server, first, second) as (one, other):
        agent = Agent("shop", one, tools=[stock], fallbacks=[other])
        models = ModelPolicy(retries=RetryPolicy(tries=1))
        async with Runtime(agent, models=models, store="memory:") as runtime:
            server.say(step("lamp"))
            server.fail()
            server.say(step("sofa"), step("desk"), Said(("Three of each.",), reasoning=("hm",)))
            end = await answered(runtime, "How many are there?")
            assert server.refused == []
            assert end.message.text == "Three of each."
            server.fail()
            server.say(Said(("Yes.",), reasoning=("hm",)))
            end = await answered(runtime, "Sure?")
            assert server.refused == []
            assert end.message.text == "Yes."
