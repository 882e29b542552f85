"""The judge: what must hold of a session, whatever was done to the processes. Pure functions.

Times are compared by intervals only: a turn was accepted before another one if its acceptance was known
before the other one was submitted. A paused process writes late: an order of completion alone proves nothing.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from msgspec import Struct

from atto.protocol.events import RunCancelled, RunCompleted, RunFailed, RunSuspended, TerminalEvent
from tests.chaos.hearing import Standing, standing
from tests.chaos.history import Committed, History, Turn
from tests.chaos.messages import results_of, shape, unmatched_results

TOLERATED = {"attempts_exhausted"}
"""Failures that faults alone can bring about: each attempt at a turn may be hit by one."""


class Violation(Struct, frozen=True):
    """`check` names the function that found it."""

    session: str
    check: str
    detail: str


class Case(Struct):
    """A history with what all checks need of it."""

    history: History
    committed: list[Committed]
    standings: dict[str, Standing]

    def outcomes(self) -> dict[str, list[TerminalEvent]]:
        """The terminal events that were heard of each turn, of all its listeners."""
        found: dict[str, list[TerminalEvent]] = defaultdict(list)
        for listener in self.history.listeners.values():
            if listener.terminal is not None:
                found[listener.label].append(listener.terminal)
        return found


def make_case(history: History) -> Case:
    standings = {
        name: heard
        for name, listener in history.listeners.items()
        if (heard := standing(listener, history.listeners)) is not None
    }
    return Case(history, history.committed(), standings)


def check(case: Case) -> list[Violation]:
    """All that is wrong with a session."""
    return [
        Violation(case.history.session, judge.__name__, detail) for judge in CHECKS for detail in judge(case)
    ]


def no_accepted_turn_is_lost(case: Case) -> Iterator[str]:
    """Each has an outcome; where nobody could name the run, the history has it."""
    outcomes = case.outcomes()
    places = {turn.label for turn in case.committed}
    for turn in case.history.turns.values():
        if not turn.is_accepted:
            continue
        if turn.run and turn.label not in outcomes:
            yield f"{turn.label} was accepted and has no outcome (run {turn.run})"
        if not turn.run and turn.label not in places and not turn.script.fails:
            yield f"{turn.label} was accepted without a run id and is not in the history"


def a_run_has_one_outcome(case: Case) -> Iterator[str]:
    """All its listeners agree on it, and it is one that the turn can have."""
    for label, terminals in case.outcomes().items():
        said = {_outcome(terminal) for terminal in terminals}
        if len(said) > 1:
            yield f"{label} has several outcomes: {sorted(map(str, said))}"
        turn = case.history.turns[label]
        yield from (
            f"{label} {problem}" for terminal in terminals[:1] if (problem := _misfit(turn, terminal))
        )


def a_run_is_committed_once(case: Case) -> Iterator[str]:
    """One that was completed once; one that was refused, failed or cancelled never; others once at most."""
    outcomes = case.outcomes()
    counts = Counter(turn.label for turn in case.committed)
    for label, count in counts.items():
        if count > 1:
            yield f"{label} is {count} times in the history"
        turn = case.history.turns.get(label)
        if turn is None:
            yield f"{label or 'a message without a turn'} is in the history and was never submitted"
        elif turn.is_refused and not turn.is_accepted:
            yield f"{label} was refused and is in the history"
    for label, terminals in outcomes.items():
        expected = isinstance(terminals[0], RunCompleted)
        if expected != (counts[label] > 0):
            yield f"{label} ended as {_outcome(terminals[0])} and is {counts[label]} times in the history"


def commits_are_in_the_order_of_acceptance(case: Case) -> Iterator[str]:
    """By the stream's sequences where producers know them, and by intervals."""
    last_sequence, last_invoked = (0, ""), (0.0, "")
    for committed in case.committed:
        turn = case.history.turns.get(committed.label)
        if turn is None:
            continue
        if turn.sequence:
            if turn.sequence <= last_sequence[0]:
                yield f"{turn.label} (sequence {turn.sequence}) was committed after {last_sequence}"
            last_sequence = max(last_sequence, (turn.sequence, turn.label))
        if turn.accepted < last_invoked[0]:
            yield (f"{turn.label} was committed after {last_invoked[1]}, submitted when it had been accepted")
        last_invoked = max(last_invoked, (turn.invoked, turn.label))


def versions_count_commits(case: Case) -> Iterator[str]:
    """The terminal event tells a turn's place in the history; the session's version is their number."""
    stored = case.history.stored
    if stored is None:
        yield "the session could not be read"
        return
    if stored.version != len(case.committed):
        yield f"version {stored.version} with {len(case.committed)} turns in the history"
    places = {turn.label: turn.place for turn in case.committed}
    for label, terminals in case.outcomes().items():
        for terminal in terminals:
            if isinstance(terminal, RunCompleted) and places.get(label, terminal.version) != terminal.version:
                yield f"{label} is turn {places[label]} of the history, its version {terminal.version}"


def histories_are_whole(case: Case) -> Iterator[str]:
    """Each turn has the model calls, tool calls and results that its script asks for."""
    for committed in case.committed:
        turn = case.history.turns.get(committed.label)
        if turn is None:
            continue
        expected: list[tuple[str, ...]] = [("user",)]
        for tools in turn.script.steps:
            expected += [("assistant", *tools), ("tool", *tools)]
        expected.append(("assistant",))
        if (found := [shape(message) for message in committed.messages]) != expected:
            yield f"{committed.label} is {found} in the history"
        yield from (f"{committed.label}: {problem}" for problem in unmatched_results(committed.messages))


def listeners_heard_what_was_committed(case: Case) -> Iterator[str]:
    """Live, resumed and late ones: the deltas that stand are the messages, and those are the history's."""
    histories = {turn.label: turn.messages[1:] for turn in case.committed}
    for name, heard in case.standings.items():
        listener = case.history.listeners[name]
        yield from (f"listener {name} of {listener.label}: {problem}" for problem in heard.problems)
        if listener.broke:
            yield f"listener {name} of {listener.label} broke: {listener.broke}"
        if not isinstance(heard.terminal, RunCompleted):
            continue
        messages = heard.messages()
        if not messages or messages[-1] != heard.terminal.message:
            yield f"listener {name} of {listener.label} heard another answer than the outcome's"
        if listener.label in histories and messages != histories[listener.label]:
            yield f"listener {name} of {listener.label} heard other messages than the history's"


def effects_are_keyed_once(case: Case) -> Iterator[str]:
    """Every committed call took effect; all executions of a call have one key, and no other call has it."""
    keys: dict[tuple[str, int, str, str], set[str]] = defaultdict(set)
    calls: dict[str, set[tuple[str, int, str, str]]] = defaultdict(set)
    for effect in case.history.effects:
        call = (effect.run, effect.step, effect.call, effect.nonce)
        keys[call].add(effect.key)
        calls[effect.key].add(call)
    yield from (f"call {call} has the keys {sorted(found)}" for call, found in keys.items() if len(found) > 1)
    yield from (
        f"key {key} is of the calls {sorted(found)}" for key, found in calls.items() if len(found) > 1
    )
    executed = {(step, call, nonce) for _, step, call, nonce in keys}
    for committed in case.committed:
        models = [message for message in committed.messages if message.role == "assistant"]
        for step, model in enumerate(models, 1):
            for call in model.tool_calls:
                if (step, call.id, call.arguments.get("nonce")) not in executed:
                    yield f"{committed.label}: call {call.id} of step {step} is committed and had no effect"


def state_is_what_the_tools_made_it(case: Case) -> Iterator[str]:
    """The count that each committed call of `count` returned is one more than that before it."""
    count, last = 0, None
    for committed in case.committed:
        for result in results_of(committed.messages):
            if result.name == "count":
                count += 1
                last = result.call_id
                if result.content != f"{last} {count}":
                    yield f"{committed.label}: the count {count} is told as {result.content!r}"
    expected = {} if last is None else {"count": count, "last": last}
    if case.history.stored is not None and case.history.stored.state != expected:
        yield f"the state is {case.history.stored.state}, the tools' results make it {expected}"


CHECKS: tuple[Callable[[Case], Iterator[str]], ...] = (
    no_accepted_turn_is_lost,
    a_run_has_one_outcome,
    a_run_is_committed_once,
    commits_are_in_the_order_of_acceptance,
    versions_count_commits,
    histories_are_whole,
    listeners_heard_what_was_committed,
    effects_are_keyed_once,
    state_is_what_the_tools_made_it,
)


def _outcome(terminal: TerminalEvent) -> tuple[object, ...]:
    match terminal:
        case RunCompleted():
            return ("completed", terminal.version, terminal.message.text)
        case RunFailed():
            return ("failed", terminal.code)
        case RunCancelled():
            return ("cancelled",)
        case RunSuspended():
            return ("suspended",)


def _misfit(turn: Turn, terminal: TerminalEvent) -> str | None:
    match terminal:
        case RunCompleted():
            return "was completed although its model fails" if turn.script.fails else None
        case RunFailed(code="model_error") if turn.script.fails:
            return None
        case RunFailed() if terminal.code in TOLERATED:
            return None
        case RunCancelled() if turn.cancel_asked:
            return None
        case _:
            return f"ended as {terminal}"
