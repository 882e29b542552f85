"""What turns ask of the scripted model and its tools: all of it is in the turn's text."""

import random

import msgspec
from msgspec import Struct

TOOLS = ("note", "count", "look")


class Script(Struct, frozen=True, omit_defaults=True):
    """The text of a turn, as JSON.

    `label` names the turn, in all sessions and for ever. `steps`: the tools that each model call but the last
    asks for. `chunks`: pieces of text in each answer, `pause` milliseconds apart (0: a tick of the loop).
    `fails`: the provider refuses the first call for good.
    """

    label: str
    steps: tuple[tuple[str, ...], ...] = ()
    chunks: int = 4
    pause: int = 0
    fails: bool = False

    def text(self) -> str:
        return msgspec.json.encode(self).decode()


_scripts = msgspec.json.Decoder(Script)


def read_script(text: str) -> Script:
    return _scripts.decode(text)


def make_script(label: str, chance: random.Random, *, slow: bool = False) -> Script:
    """Most turns are short; a few take their time, so that faults find something under way."""
    steps = tuple(
        tuple(chance.choices(TOOLS, k=chance.choice((1, 1, 2))))
        for _ in range(chance.choice((0, 0, 0, 1, 1, 2)))
    )
    pause = 40 if slow else chance.choice((0, 0, 1, 1, 1, 2, 2, 5, 20))
    return Script(label, steps, chance.randint(2, 8), pause, fails=chance.random() < 0.01)
