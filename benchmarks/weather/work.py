"""What is said in a turn, by session and number of the turn, so that either end can check the other."""

from collections.abc import Iterator
from typing import NamedTuple

CITIES = ("Oslo", "Rome", "Lima", "Bern", "Riga", "Doha", "Kyiv", "Baku")
MESSAGES = 4
"""Messages that a turn adds to the history: the user's, the call, its result, the answer."""
DELTAS = 10
TURNS = 5
"""Turns of a session, before its caller begins another one."""


class Pace(NamedTuple):
    """How long the model takes, in seconds."""

    first: float = 0.0
    delta: float = 0.0

    @property
    def turn(self) -> float:
        """What a turn takes where nothing but the model takes time: two calls, one of them with deltas."""
        return 2 * self.first + DELTAS * self.delta


AT_ONCE = Pace()
PACED = Pace(first=0.3, delta=0.02)

_ANSWER = ("It is 21", " C and s", "unny in ", "the city", ", with a", " light w", "ind from", " W now. ")


class Entry(NamedTuple):
    """One message of a history, as it is compared: `role` is user, call, tool or assistant."""

    role: str
    text: str


class HistoryBroken(Exception):
    """The history that the model was handed is not whole."""


def question(session: str, turn: int) -> str:
    return f"[{session}#{turn}] What is the weather in {city(turn)} today?"


def asked(text: str) -> tuple[str, int]:
    """The session and the turn of a question."""
    session, _, turn = text[1 : text.index("]")].partition("#")
    return session, int(turn)


def city(turn: int) -> str:
    return CITIES[turn % len(CITIES)]


def report(city: str) -> str:
    """What the tool says."""
    return f"{city}: 21 C, sunny, wind 3 m/s W"


def deltas(session: str, turn: int) -> tuple[str, ...]:
    return (f"{turn:07} ", f"{session[:7]:7} ", *_ANSWER)


def answer(session: str, turn: int) -> str:
    return "".join(deltas(session, turn))


def check(text: str, messages: int, *, is_answering: bool) -> tuple[str, int]:
    """The session and the turn of the question `text`. Raises `HistoryBroken` if messages are missing."""
    session, turn = asked(text)
    expected = MESSAGES * (turn - 1) + (3 if is_answering else 1)
    if messages != expected:
        raise HistoryBroken(f"turn {turn} of {session}: {messages} messages instead of {expected}")
    return session, turn


def history(session: str, turns: int) -> Iterator[Entry]:
    """What the store must hold in the end."""
    for turn in range(1, turns + 1):
        yield Entry("user", question(session, turn))
        yield Entry("call", city(turn))
        yield Entry("tool", report(city(turn)))
        yield Entry("assistant", answer(session, turn))
