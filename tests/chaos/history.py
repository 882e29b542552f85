"""One session's observations, put together: turns, listeners, effects, and what is stored."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from msgspec import Struct, field

from atto.protocol.events import AnyEvent, TerminalEvent, is_terminal
from atto.protocol.ids import decode_session
from atto.protocol.messages import Message
from tests.chaos import records
from tests.chaos.records import AnyLine, Effect, Stored
from tests.chaos.turns import Script, read_script

FOREVER = float("inf")


class Refusal(Struct, frozen=True):
    """A turn was not accepted, and why."""

    t: float
    error: str


class Turn(Struct):
    """A turn as its producers saw it. `accepted`: when the broker's answer came, at the earliest. `offers`:
    when it was submitted, each time. `has_raised`: its model raised on purpose.
    """

    label: str
    script: Script
    run: str = ""
    invoked: float = FOREVER
    accepted: float = FOREVER
    sequence: int = 0
    offers: list[float] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    cancel_asked: bool = False
    cancel_taken: float = FOREVER
    has_raised: bool = False

    @property
    def is_accepted(self) -> bool:
        return self.accepted < FOREVER


class Listener(Struct):
    """What one listener heard, in its order, with the times."""

    name: str
    label: str
    began: float = 0.0
    after: int = 0
    follows: str = ""
    heard: list[tuple[float, AnyEvent]] = field(default_factory=list)
    broke: str = ""

    @property
    def terminal(self) -> TerminalEvent | None:
        last = self.heard[-1][1] if self.heard else None
        return last if last is not None and is_terminal(last) else None


class Committed(Struct):
    """A turn in the stored history, by its place (1, 2, 3 …)."""

    place: int
    label: str
    messages: list[Message]


class History(Struct):
    """All that was observed of a session."""

    session: str
    turns: dict[str, Turn] = field(default_factory=dict)
    listeners: dict[str, Listener] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    reads: list[records.Read] = field(default_factory=list)
    stored: Stored | None = None

    def committed(self) -> list[Committed]:
        """The stored history, turn by turn. What comes before the first user's message is a turn without a
        label.
        """
        found: list[Committed] = []
        for message in () if self.stored is None else self.stored.messages:
            if message.role == "user" or not found:
                label = read_script(message.text).label if message.role == "user" else ""
                found.append(Committed(len(found) + 1, label, []))
            found[-1].messages.append(message)
        return found


def read_history(directory: Path) -> History:
    """`directory`: a session's."""
    lines = (line for path in sorted(directory.glob("*.jsonl")) for line in records.read(path))
    return make_history(decode_session(directory.name), lines)


def make_history(session: str, lines: Iterable[AnyLine]) -> History:
    """Lines may come in any order, except that each listener's come in its own."""
    history = History(session)
    for line in sorted(lines, key=_invoked_first):
        _add(history, line)
    return history


def _invoked_first(line: AnyLine) -> int:
    match line:
        case records.Invoked():
            return 0
        case records.Listening():
            return 1
        case _:
            return 2


def _add(history: History, line: AnyLine) -> None:  # noqa: C901, PLR0912 - a case each kind of line
    match line:
        case records.Invoked():
            turn = history.turns.setdefault(line.label, Turn(line.label, read_script(line.text), line.run))
            turn.invoked = min(turn.invoked, line.t)
            turn.offers.append(line.t)
        case records.Accepted():
            turn = history.turns[line.label]
            if line.t < turn.accepted:
                turn.accepted, turn.sequence = line.t, line.sequence
        case records.Refused():
            history.turns[line.label].refusals.append(Refusal(line.t, line.error))
        case records.CancelAsked():
            history.turns[line.label].cancel_asked = True
        case records.CancelTaken():
            turn = history.turns[line.label]
            turn.cancel_taken = min(turn.cancel_taken, line.t)
        case records.Raised():
            history.turns[line.label].has_raised = True
        case records.Listening():
            history.listeners[line.listener] = Listener(
                line.listener, line.label, line.t, line.after, line.follows
            )
        case records.Heard():
            history.listeners[line.listener].heard.append((line.t, line.event))
        case records.Broke():
            history.listeners[line.listener].broke = line.error
        case records.Effect():
            history.effects.append(line)
        case records.Read():
            history.reads.append(line)
        case records.Stored():
            history.stored = line
        case records.Unknown():
            pass


def labels_in(messages: Iterable[Message]) -> list[str]:
    """Of the turns that a history holds, in its order."""
    return [read_script(message.text).label for message in messages if message.role == "user"]


def histories(directory: Path) -> Iterator[History]:
    """One at a time: a chaos run may have more than memory holds."""
    for session in sorted((directory / "sessions").iterdir()):
        yield read_history(session)
