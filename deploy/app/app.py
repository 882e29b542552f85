"""The agent that the image runs until it is given another: a scripted model, so it needs no key.

It answers what it was asked, word by word at the speed of a model; `count to 50` takes as many words.
"""

import os
import re
from collections.abc import Iterator

from atto import Agent, ScriptedModel, ToolContext, tool
from atto.models import Answer, FinishChunk, ModelRequest, Pause, TextChunk, call
from atto.models.scripted import Item

SECONDS_A_WORD = float(os.environ.get("EXAMPLE_SECONDS_A_WORD", "0.04"))


@tool
async def take_a_number(context: ToolContext) -> int:
    """Draws the next number of this session."""
    number = int(context.state.get("number", 0)) + 1
    context.state["number"] = number
    return number


def scripted(request: ModelRequest) -> Answer:
    """Plays a model that draws a number, and then answers with it."""
    last = request.messages[-1]
    if last.role == "user":
        return call("take_a_number")
    asked = next(message.text for message in reversed(request.messages) if message.role == "user")
    [result] = last.content
    return list(spoken(f"Number {getattr(result, 'content', '')}: {answered(asked)}"))


def answered(asked: str) -> str:
    """Numbers, if it was asked to count; else an echo."""
    if found := re.fullmatch(r"count to (\d{1,4})", asked.strip()):
        return " ".join(str(number) for number in range(1, int(found[1]) + 1))
    return f"you said {asked!r}."


def spoken(text: str) -> Iterator[Item]:
    """Word by word."""
    for number, word in enumerate(text.split(" ")):
        yield Pause(SECONDS_A_WORD)
        yield TextChunk(word if number == 0 else f" {word}")
    yield FinishChunk("stop")


agent = Agent("example", ScriptedModel.of(scripted), "You draw numbers.", [take_a_number])
