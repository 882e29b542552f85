"""Every ordered pair of models in one history: one begins a tool loop, the other goes on, the first returns.

The provider is a rule server, so that whatever a real one would refuse is refused here. What must not be
lost: texts, calls, results and images, and what a model thought once it is asked again.
"""

import pytest

from atto.protocol.messages import ImagePart, Message, ReasoningPart, TextPart, ToolCallPart
from atto.testing.providers import RuleServer

from .families import FAMILIES
from .talks import PIXEL, Stage

PAIRS = [(first, second) for first in FAMILIES for second in FAMILIES]


@pytest.fixture(scope="module")
async def stage():
    """A server, and a model of each family before it, for all pairs."""
    async with RuleServer() as server, server.client() as http:
        models = {name: family.make(http) for name, family in FAMILIES.items()}
        yield Stage(server, models)
        for model in models.values():
            await model.aclose()


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
