"""Several agents on Gemini, one of which asks the others: `GEMINI_API_KEY=… python examples/gemini_team.py`.

A specialist is an agent offered as a tool: it works inside the run that asks, and says `AgentEvent`s.
"""

import asyncio
import os
import sys

from atto import Agent, ToolContext, events, tool
from atto_workers import Runtime

MODEL = f"gemini:{os.environ.get('GEMINI_MODEL', 'gemini-3-flash-preview')}"
QUESTION = "I have 300 euros and one weekend in Rome. What do I do, and what does it cost?"

PRICES = {"hotel": 90, "museum": 18, "dinner": 35, "metro": 7}


@tool(read_only=True)
def price_of(item: str, context: ToolContext) -> str:
    """Tells what something costs, in euros.

    Args:
        item: One of hotel, museum, dinner, metro.
    """
    context.state["priced"] = [*context.state.get("priced", []), item]
    return f"{PRICES[item]} euros" if item in PRICES else f"unknown: ask for one of {', '.join(PRICES)}"


def team() -> Agent:
    guide = Agent(
        "guide",
        MODEL,
        "You know cities. Propose three things to do, one line each.",
        description="Proposes what to do in a city.",
    )
    accountant = Agent(
        "accountant",
        MODEL,
        "You add up what things cost. Look every price up.",
        [price_of],
        description="Tells what a list of things costs.",
    )
    return Agent(
        "coordinator",
        MODEL,
        "Ask the guide what to do, then the accountant what it costs, then answer in five lines.",
        [guide.as_tool(), accountant.as_tool()],
    )


def show(event: events.AnyEvent, names: dict[str, str]) -> None:
    who = names.get(event.path, "coordinator")
    match event:
        case events.AgentStarted():
            names[event.path] = event.agent
        case events.ToolStarted():
            print(f"{who:<12} asks {event.name}: {event.arguments}")
        case events.ModelCompleted(message=message) if message.text:
            print(f"{who:<12} says {message.text}")
        case events.RunFailed():
            sys.exit(f"the run failed ({event.code}): {event.message}")
        case _:
            pass


async def main(question: str) -> None:
    names: dict[str, str] = {}
    async with Runtime(team()) as runtime:
        async for event in runtime.run("weekend", question):
            show(event, names)


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or QUESTION))
