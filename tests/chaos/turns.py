"""What turns ask of the scripted model and its tools: all of it is in the turn's text."""

import random

import msgspec
from msgspec import Struct

TOOLS = ("note", "count", "look", "charge")
AT_MOST_ONCE = {"charge"}
READ_ONLY = {"look"}


class Script(Struct, frozen=True, omit_defaults=True):
    """The text of a turn, as JSON.

    `label` names the turn, in all sessions and for ever. `steps`: the tools that each model call but the last
    asks for; each takes `work` milliseconds. `chunks`: pieces of text in each answer, `pause` milliseconds
    apart (0: a tick of the loop). `fails`: the provider refuses the last call for good.
    """

    label: str
    steps: tuple[tuple[str, ...], ...] = ()
    chunks: int = 4
    pause: int = 0
    work: int = 1
    fails: bool = False

    @property
    def seconds(self) -> float:
        """How long it takes at least, if nothing goes wrong."""
        calls = sum(map(len, self.steps))
        return (self.chunks * self.pause * (len(self.steps) + 1) + calls * self.work) / 1000

    def text(self) -> str:
        return msgspec.json.encode(self).decode()


_scripts = msgspec.json.Decoder(Script)


def read_script(text: str) -> Script:
    return _scripts.decode(text)


def make_script(
    label: str,
    chance: random.Random,
    *,
    slow: bool = False,
    steps: int | None = None,
) -> Script:
    """Most turns are short; a few take their time, so that faults find something under way."""
    count = chance.choice((0, 0, 0, 1, 1, 2)) if steps is None else steps
    return Script(
        label,
        tuple(tuple(chance.choices(TOOLS, k=chance.choice((1, 1, 2)))) for _ in range(count)),
        chance.randint(2, 8),
        40 if slow else chance.choice((0, 0, 1, 1, 1, 2, 2, 5, 20)),
        chance.choice((1, 1, 1, 5, 30)),
        fails=chance.random() < 0.02,
    )
