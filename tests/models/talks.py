"""A conversation that several models hold in turn, before a rule server."""

import base64
import json
from contextlib import asynccontextmanager

from atto.models.base import ModelRequest, ToolSpec
from atto.protocol.messages import ImagePart, Message, ReasoningPart, TextPart, ToolResultPart
from atto.testing.model_checks import ask
from atto.testing.model_dialect import Said, SaidCall

from .families import FAMILIES

STOCK = ToolSpec(
    "stock",
    "How many there are.",
    {"type": "object", "properties": {"item": {"type": "string"}}, "required": ["item"]},
)
PIXEL = b"\x89PNG-of-a-lamp"
PIXEL_SENT = base64.b64encode(PIXEL).decode()


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
            messages=tuple(self.history), tools=(STOCK,), instruction="Be brief.", cache_key="k" * 128
        )
        answer = (await ask(self.models[name], request)).message
        assert self.server.refused == []
        self._nothing_is_lost(name)
        self.history.append(answer)
        return answer

    def _id(self, at):
        """The provider's own, one that comes again, one that few providers would take."""
        return ("", "functions.stock:0", f"functions.stock:{at}/ü")[self.step % 3]

    def _nothing_is_lost(self, name):
        sent = json.dumps(self.server.requests[-1].body, ensure_ascii=False)
        assert [text for text in self.texts if text not in sent.replace("\\", "")] == []
        pictured = any(isinstance(part, ImagePart) for message in self.history for part in message.content)
        if FAMILIES[name].takes_images and pictured:
            assert PIXEL_SENT in sent
        for message in self.history:
            if message.origin == self.models[name].origin and message.tool_calls:
                thought = [part for part in message.content if isinstance(part, ReasoningPart)]
                assert [part for part in thought if part.text not in sent] == []
