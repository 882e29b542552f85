"""What is promised to listeners: live, resumed and late ones."""

from collections.abc import Iterator

from atto.protocol.events import RunCompleted
from tests.chaos.case import Case, Check, version_of


def listening_goes_on(case: Case) -> Iterator[str]:
    """Whoever listens is handed events up to the last one, and no error."""
    for listener in case.history.listeners.values():
        if listener.broke:
            yield f"listener {listener.name} of {listener.label} broke: {listener.broke}"


def events_in_sequence(case: Case) -> Iterator[str]:
    """Events come in the order of their numbers, without a gap, and none comes after the terminal one."""
    for name, heard in case.standings.items():
        label = case.history.listeners[name].label
        yield from (f"listener {name} of {label}: {problem}" for problem in heard.gaps)


def deltas_equal_message(case: Case) -> Iterator[str]:
    """The pieces of an answer that stand, put together, are the answer."""
    for name, heard in case.standings.items():
        label = case.history.listeners[name].label
        yield from (f"listener {name} of {label}: {problem}" for problem in heard.misquotes)


def heard_is_committed(case: Case) -> Iterator[str]:
    """The messages of a run are, as each of its listeners heard them in the end, those in the history."""
    histories = {turn.label: turn.messages[1:] for turn in case.committed}
    for name, heard in case.standings.items():
        label = case.history.listeners[name].label
        if heard.terminal is None or not version_of(heard.terminal):
            continue
        messages = heard.messages()
        if isinstance(heard.terminal, RunCompleted) and messages[-1:] != [heard.terminal.message]:
            yield f"listener {name} of {label} heard another answer than the outcome's"
        if label in histories and messages != histories[label]:
            yield f"listener {name} of {label} heard other messages than the history's"


CHECKS: tuple[Check, ...] = (
    listening_goes_on,
    events_in_sequence,
    deltas_equal_message,
    heard_is_committed,
)
