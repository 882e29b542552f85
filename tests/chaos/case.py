"""A session's history with what all checks need of it. Pure functions.

Times are compared by intervals only: a turn was accepted before another one if its acceptance was known
before the other one was submitted. A paused process writes late: an order of completion alone proves nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

from msgspec import Struct

from atto.protocol.events import RunCancelled, RunCompleted, RunFailed, RunSuspended, TerminalEvent
from tests.chaos.audit import LATE
from tests.chaos.hearing import Standing, standing
from tests.chaos.history import FOREVER, Committed, History, Listener
from tests.chaos.records import Fault

PATIENCE = 60.0
"""Seconds in which a turn ends once nothing of its own session is before it, whatever is done elsewhere."""
BACKLOG = 12


class Terms(Struct, frozen=True):
    """What a session is judged by. `faults`: in the order of their times."""

    faults: Sequence[Fault] = ()
    patience: float = PATIENCE
    backlog: int = BACKLOG


class Case(Struct):
    """A session, ready to be judged."""

    history: History
    committed: list[Committed]
    standings: dict[str, Standing]
    terms: Terms

    def outcomes(self) -> dict[str, list[TerminalEvent]]:
        """The terminal events that were heard of each turn, of all its listeners."""
        found: dict[str, list[TerminalEvent]] = defaultdict(list)
        for listener in self.history.listeners.values():
            if listener.terminal is not None:
                found[listener.label].append(listener.terminal)
        return found

    def ends(self) -> dict[str, float]:
        """When the end of each turn was heard first, while the run of chaos went on."""
        found: dict[str, float] = defaultdict(lambda: FOREVER)
        for listener in self.prompt_listeners():
            if listener.terminal is not None:
                found[listener.label] = min(found[listener.label], listener.heard[-1][0])
        return found

    def prompt_listeners(self) -> Iterator[Listener]:
        """All but those that came when everything had ended."""
        for listener in self.history.listeners.values():
            if not listener.name.startswith(f"{LATE}."):
                yield listener

    def faults(self, since: float, until: float) -> Iterator[Fault]:
        """Those that were under way at some time in between."""
        for fault in self.terms.faults:
            if fault.t <= until and fault.until >= since:
                yield fault


Check = Callable[[Case], Iterator[str]]
"""Says of a case, in words, each way in which the promise that it is named after was broken."""


def make_case(history: History, terms: Terms | None = None) -> Case:
    standings = {
        name: heard
        for name, listener in history.listeners.items()
        if (heard := standing(listener, history.listeners)) is not None
    }
    return Case(history, history.committed(), standings, terms or Terms())


def outcome(terminal: TerminalEvent) -> tuple[object, ...]:
    """What all listeners must agree on."""
    match terminal:
        case RunCompleted():
            return ("completed", terminal.version, terminal.message.text)
        case RunFailed():
            return ("failed", terminal.code, terminal.version)
        case RunCancelled():
            return ("cancelled", terminal.version)
        case RunSuspended():
            return ("suspended",)


def version_of(terminal: TerminalEvent) -> int:
    """That of the session which holds the run; 0 if none does."""
    return getattr(terminal, "version", 0)
