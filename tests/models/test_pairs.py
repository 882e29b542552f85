"""Every ordered pair of models in one history: one begins a tool loop, the other goes on, the first returns.

The provider is a rule server, so that whatever a real one would refuse is refused here. What must not be
lost: texts, calls, results and images, and what a model thought once it is asked again.
"""

import base64
import json
from contextlib import asynccontextmanager

import pytest

from atto.models.base import ModelRequest, ToolSpec
from atto.protocol.messages import (
    ImagePart,
    Message,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from atto.testing.model_checks import ask
from atto.testing.model_dialect import Said, SaidCall
from atto.testing.providers import RuleServer

from .families import FAMILIES

STOCK = ToolSpec(
    "stock",
    "How many there are.",
    {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]},
)
PIXEL = b"\x89PNG-of-a-lamp"
PIXEL_SENT = base64.b64encode(PIXEL).decode()
PAIRS = [(first, second) for first in FAMILIES for second in FAMILIES]


@pytest.fixture(scope="module")
async def stage():
    """A server, and a model of each family before it, for all pairs."""
    async with RuleServer() as server, server.client() as http:
        models = {name: family.make(http) for name, family in FAMILIES.items()}
        yield Stage(server, models)
        for model in models.values():
            await model.aclose()


class Stage:
    def __init__(self, server, models):
        self.server = server
        self.models = models

    @asynccontextmanager
    async def play(self):
        self.server.clear()
        yield Talk(self.server, self.models)
        while self.server.open:
            self.server.gone.clear()
            await self.server.gone.wait()


class Talk:
    """A conversation: its history, and what was said in it."""

    def __init__(self, server, models):
        self.server = server
        self.models = models
        self.history = []
        self.texts = []
        self.step = 0

    def user(self, text, *media):
        self.texts.append(text)
        self.history.append(Message.user((TextPart(text), *media)))

    async def call(self, name):
        """A step: the model thinks, says something, and calls a tool twice, under ids that may come again."""
        self.step += 1
        items = [f"lamp-{self.step}", f"sofa-{self.step}"]
        said = Said(
            (f"Step {self.step}, ", "wait."),
            reasoning=(f"thought {self.step} ", f"of {name}"),
            calls=tuple(
                SaidCall(self._id(at), "stock", ('{"item":', f'"{item}"}}')) for at, item in enumerate(items)
            ),
        )
        answer = await self._ask(name, said)
        assert [call.arguments["item"] for call in answer.tool_calls] == items
        self.texts += [f"Step {self.step}, wait.", *items]
        return answer

    def results(self, answer):
        first, second = answer.tool_calls
        self.texts += [f"{self.step} of them", f"broken {self.step}"]
        picture = ImagePart(data=PIXEL, media_type="image/png")
        content = (TextPart(f"{self.step} of them"), picture)
        self.history.append(
            Message(
                "tool",
                (
                    ToolResultPart(first.id, first.name, content),
                    ToolResultPart(second.id, second.name, f"broken {self.step}", is_error=True),
                ),
            )
        )

    async def say(self, name):
        self.step += 1
        await self._ask(name, Said((f"Answer {self.step}.",), reasoning=(f"thought {self.step}",)))
        self.texts.append(f"Answer {self.step}.")

    async def _ask(self, name, said):
        self.server.say(said)
        request = ModelRequest(
            messages=tuple(self.history), tools=(STOCK,), instruction="Be brief.", cache_key="session"
        )
        answer = (await ask(self.models[name], request)).message
        assert self.server.refused == []
        self._nothing_is_lost(name)
        self.history.append(answer)
        return answer

    def _id(self, at):
        """The provider's own, one that comes again, one that few providers would take."""
        return ("functions.stock:0", "", f"functions.stock:{at}/ü")[self.step % 3]

    def _nothing_is_lost(self, name):
        sent = json.dumps(self.server.requests[-1].body, ensure_ascii=False)
        assert [text for text in self.texts if text not in sent.replace("\\", "")] == []
        pictured = any(isinstance(part, ImagePart) for message in self.history for part in message.content)
        if FAMILIES[name].takes_images and pictured:
            assert PIXEL_SENT in sent
        for message in self.history:
            if message.origin == self.models[name].origin and message.tool_calls:
                thought = [part for part in message.content if isinstance(part, ReasoningPart)]
                assert [part for part in thought if part.native and part.text not in sent] == []


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=["-to-".join(pair) for pair in PAIRS])
async def test_one_begins_the_other_goes_on_the_first_comes_back(stage, first, second):
    async with stage.play() as talk:
        talk.user("How many are there?", ImagePart(data=PIXEL, media_type="image/png"))
        for name in (first, second, first, second, first):
            talk.results(await talk.call(name))
        await talk.say(first)
        talk.user("And now?")
        await talk.say(second)
        talk.user("Sure?")
        await talk.say(first)


@pytest.mark.parametrize(("first", "second"), PAIRS, ids=["-to-".join(pair) for pair in PAIRS])
async def test_what_the_first_left_unfinished_the_second_takes(stage, first, second):
    async with stage.play() as talk:
        talk.user("How many are there?")
        await talk.call(first)  # cancelled before a result
        talk.user("Never mind. And now?")
        talk.results(await talk.call(second))
        talk.user("Stop.")  # cancelled behind the results
        origin = stage.models[first].origin
        cut = (TextPart("Let me s"), ToolCallPart("cut", "stock", malformed='{"item": "la'))
        talk.history.append(Message("assistant", cut, origin))
        talk.texts.append("Let me s")
        talk.user("Go on.")
        talk.history.append(Message("assistant", (), origin))  # an answer without content
        talk.user("So?")
        talk.history.append(Message("assistant", (ReasoningPart("hm"),), stage.models["chat"].origin))
        talk.user("Well?")
        await talk.say(second)
        talk.user("Thanks.")
        await talk.say(first)
