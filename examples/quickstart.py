"""A durable, streaming agent in one process: `python examples/quickstart.py ["a question" …]`.

Without a key a scripted model plays the provider. With OPENAI_API_KEY, or OPENAI_BASE_URL for a server that
speaks the same protocol, the same agent talks to a real one; OPENAI_MODEL names the model.
"""

import asyncio
import os
import sys
from collections.abc import Iterator

from atto import Agent, Model, OpenAIChat, ScriptedModel, ToolContext, events, tool
from atto.models import Answer, FinishChunk, ModelRequest, Pause, TextChunk, call
from atto.models.scripted import Item
from atto_workers import Runtime

QUESTIONS = ("What is the weather in Oslo?", "And in Rome?")


@tool
async def get_weather(city: str, context: ToolContext) -> str:
    """Tells the weather.

    Args:
        city: The name of a city.
    """
    context.state["cities"] = [*context.state.get("cities", []), city]
    return f"{city}: sunny, {15 + len(city)} degrees"


def scripted(request: ModelRequest) -> Answer:
    """Plays a model: asks for the weather of the city in the question, then says what the tool found."""
    last = request.messages[-1]
    if last.role == "user":
        city = last.text.rstrip("?!. ").rpartition(" ")[2] or "Oslo"
        return call("get_weather", city=city)
    [result] = last.content
    return list(typing(f"The weather report says: {getattr(result, 'content', '')}. Enjoy your day!"))


def typing(text: str) -> Iterator[Item]:
    """Text word by word, at about the speed of a model."""
    for word in text.split(" "):
        yield Pause(0.04)
        yield TextChunk(f"{word} ")
    yield FinishChunk("stop")


def model() -> Model:
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        return OpenAIChat(os.environ.get("OPENAI_MODEL", "gpt-4.1-mini"))
    return ScriptedModel.of(scripted)


async def main(questions: tuple[str, ...]) -> None:
    agent = Agent("weather", model(), "You are a brief and friendly weather assistant.", [get_weather])
    async with Runtime(agent) as runtime:
        for question in questions:
            print(f"\nyou    {question}\nagent  ", end="")
            async for event in runtime.run("user-123", question):
                match event:
                    case events.ToolStarted():
                        print(f"[{event.name} {event.arguments}] ", end="", flush=True)
                    case events.TextDelta():
                        print(event.text, end="", flush=True)
                    case events.StepRestarted():
                        print("\n       (once more) ", end="", flush=True)
                    case events.RunFailed():
                        print(f"\nthe run failed ({event.code}): {event.message}", end="")
                    case _:
                        pass
            print()
        snapshot = await runtime.snapshot("user-123")
        print(f"\nversion {snapshot.version}: {len(snapshot.messages)} messages, state {snapshot.state}")


if __name__ == "__main__":
    asyncio.run(main(tuple(sys.argv[1:]) or QUESTIONS))
