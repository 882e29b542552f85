"""What is promised of turns: from acceptance to their one end and their place in the history."""

from collections import Counter
from collections.abc import Iterator, Mapping

from atto.protocol.events import RunCancelled, RunCompleted, RunFailed, TerminalEvent, TextDelta, is_terminal
from atto.protocol.messages import Message
from tests.chaos.case import Case, Check, outcome, version_of
from tests.chaos.history import FOREVER, Turn
from tests.chaos.messages import shape, unmatched_results
from tests.chaos.turns import READ_ONLY

ATTEMPTS = 5
"""Attempts that a turn has."""
HARMLESS = {
    "term",
    "term_saturated",
    "term_stubborn",
    "skew",
    "hostile_bytes",
    "raise",
    "raise_in_model",
    "client_kill",
}
"""Faults by which no attempt may be used up: workers that are told to stop let go of what they do."""
REFUSALS = {
    *("SessionBacklogFull", "Overloaded", "BrokerUnavailable", "NoResponders", "TopologyMissing"),
    *("APIError", "NoStreamResponseError", "ServiceUnavailableError", "ServerError", "BadRequestError"),
}
"""How a turn is refused, with words; the last of them are nats-py's, which a raw producer meets."""
CANCEL_PATIENCE = 10.0
"""Seconds for which a run may speak on after the broker took the request for its end."""


def accepted_turn_ends(case: Case) -> Iterator[str]:
    """An accepted turn has an outcome; where nobody could name its run, the history has it."""
    outcomes = case.outcomes()
    places = {turn.label for turn in case.committed}
    for turn in case.history.turns.values():
        if not turn.is_accepted:
            continue
        if turn.run and turn.label not in outcomes:
            yield f"{turn.label} was accepted and has no outcome (run {turn.run})"
        may_fail = turn.script.fails or turn.has_raised or _may_be_lost(case, turn)
        if not turn.run and turn.label not in places and not may_fail:
            yield f"{turn.label} was accepted without a run id and is not in the history"


def one_terminal_event(case: Case) -> Iterator[str]:
    """A run ends once: all who hear of it, at any time and however often it is submitted, hear one end."""
    for label, terminals in case.outcomes().items():
        said = {outcome(terminal) for terminal in terminals}
        if len(said) > 1:
            yield f"{label} has several outcomes: {sorted(map(str, said))}"


def outcome_has_a_cause(case: Case) -> Iterator[str]:
    """A run is completed unless its model, its tools, its caller or too many crashes are to blame."""
    for label, terminals in case.outcomes().items():
        turn = case.history.turns[label]
        for terminal in terminals[:1]:
            if _is_lost(terminal) and _may_be_lost(case, turn):
                continue
            if problem := _misfit(turn, terminal):
                yield f"{label} {problem}"


def interruptions_do_not_count(case: Case) -> Iterator[str]:
    """A turn is given up after five attempts that ended badly, not after those that a stop interrupted."""
    ends = case.ends()
    for label, terminals in case.outcomes().items():
        if not any(
            isinstance(terminal, RunFailed) and terminal.code == "attempts_exhausted"
            for terminal in terminals
        ):
            continue
        turn = case.history.turns[label]
        faults = [
            fault for fault in case.faults(turn.invoked - 10, ends[label]) if fault.name not in HARMLESS
        ]
        if len(faults) < ATTEMPTS and not turn.has_raised:
            yield f"{label} was given up after {len(faults)} faults: {[fault.name for fault in faults]}"


def committed_once(case: Case) -> Iterator[str]:
    """A turn is in the history once at most, and nothing is that nobody submitted."""
    for label, count in Counter(turn.label for turn in case.committed).items():
        if count > 1:
            yield f"{label} is {count} times in the history"
        if label not in case.history.turns:
            yield f"{label or 'a message without a turn'} is in the history and was never submitted"


def completed_is_committed(case: Case) -> Iterator[str]:
    """A completed run is in the history, and so is one that was cancelled after it began.

    One that failed is only after a call that may have had an effect.
    """
    places = {turn.label: turn for turn in case.committed}
    for label, terminals in case.outcomes().items():
        terminal, found = terminals[0], places.get(label)
        where = "not in" if found is None else "in"
        if isinstance(terminal, RunFailed):
            is_right = found is None or (terminal.version > 0 and _may_have_acted(found.messages))
        else:
            is_right = (version_of(terminal) > 0) == (found is not None)
        if not is_right:
            yield f"{label} ended as {outcome(terminal)} and is {where} the history"


def explicit_refusal(case: Case) -> Iterator[str]:
    """A turn that is refused is told why, and is never run."""
    runs = {effect.run for effect in case.history.effects}
    places = {turn.label for turn in case.committed}
    for turn in case.history.turns.values():
        yield from (
            f"{turn.label} was refused with {refusal.error}"
            for refusal in turn.refusals
            if refusal.error not in REFUSALS
        )
        if turn.refusals and len(turn.refusals) == len(turn.offers):
            if turn.label in places:
                yield f"{turn.label} was refused and is in the history"
            elif turn.run and turn.run in runs:
                yield f"{turn.label} was refused and took effect"


def session_order(case: Case) -> Iterator[str]:
    """Turns of a session are committed in the order in which they were accepted."""
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
            yield f"{turn.label} was committed after {last_invoked[1]}, submitted when it had been accepted"
        last_invoked = max(last_invoked, (turn.invoked, turn.label))


def version_is_place(case: Case) -> Iterator[str]:
    """Versions grow along the history, one a run that has begun; the session's is that of the last."""
    stored = case.history.stored
    if stored is None:
        yield "the session could not be read"
        return
    outcomes = case.outcomes()
    versions = {label: version for label, ends in outcomes.items() if (version := version_of(ends[0]))}
    for version, count in Counter(versions.values()).items():
        if count > 1:
            yield f"{count} runs have made version {version}"
    yield from (
        f"{label} has made version {version}, the session is at {stored.version}"
        for label, version in versions.items()
        if version > stored.version
    )
    unheard = [turn for turn in case.history.turns.values() if _may_be_committed(turn, outcomes)]
    kept = sum(turn.label not in versions for turn in case.committed)
    if not len(versions) + kept <= stored.version <= len(versions) + len(unheard):
        yield f"version {stored.version} with {len(versions)} commits heard of, {kept} others in the history"
    last = 0
    for turn in case.committed:
        version = versions.get(turn.label, max(last + 1, turn.place))
        if version < max(last + 1, turn.place):
            yield f"{turn.label} is turn {turn.place} of the history, after version {last}, as {version}"
        last = version


def history_is_whole(case: Case) -> Iterator[str]:
    """Each turn in the history has the model calls, tool calls and results that its script asks for.

    All of them if it was completed; else those up to some point, and a result for each call.
    """
    raised = {effect.call for effect in case.history.effects if effect.raised}
    outcomes = case.outcomes()
    for committed in case.committed:
        turn = case.history.turns.get(committed.label)
        if turn is None:
            continue
        expected: list[tuple[str, ...]] = [("user",)]
        for tools in turn.script.steps:
            expected += [("assistant", *tools), ("tool", *tools)]
        expected.append(("assistant",))
        is_whole = not _may_be_unfinished(turn, outcomes)
        found = [shape(message) for message in committed.messages]
        if found != expected and (is_whole or not _is_beginning(found, expected)):
            yield f"{committed.label} is {found} in the history"
        yield from (
            f"{committed.label}: {problem}"
            for problem in unmatched_results(committed.messages, raised, is_whole=is_whole)
        )


def read_after_end(case: Case) -> Iterator[str]:
    """Whoever has heard a run's end reads a history that holds it."""
    heard = sorted(
        (t, version_of(event), listener.label)
        for listener in case.history.listeners.values()
        for t, event in listener.heard
        if is_terminal(event) and version_of(event)
    )
    for read in case.history.reads:
        known = max(((version, label) for t, version, label in heard if t < read.t), default=(0, ""))
        if read.version < known[0]:
            yield f"version {read.version} was read after {known[1]} had been heard to make {known[0]}"


def cancel_ends_run(case: Case) -> Iterator[str]:
    """A run stops speaking soon after its end was asked for."""
    patience = min(CANCEL_PATIENCE, case.terms.patience)
    for listener in case.prompt_listeners():
        turn = case.history.turns[listener.label]
        if listener.after or not listener.heard or turn.cancel_taken == FOREVER:
            continue
        began = max(turn.cancel_taken, listener.began)
        last = max((t for t, event in listener.heard if isinstance(event, TextDelta)), default=0.0)
        if last - began > patience and not isinstance(listener.terminal, RunCancelled):
            yield f"{listener.label} spoke for {last - began:.1f} s after its cancellation was taken"


def place_comes_back(case: Case) -> Iterator[str]:
    """A turn that has ended makes room for another one: only unfinished turns fill a session's backlog."""
    ends, patience = case.ends(), case.terms.patience
    for turn in case.history.turns.values():
        for refusal in turn.refusals:
            if refusal.error != "SessionBacklogFull":
                continue
            held = [
                other
                for other in case.history.turns.values()
                if other is not turn and _may_hold_a_place(other, ends[other.label], refusal.t, patience)
            ]
            if len(held) < case.terms.backlog:
                yield f"{turn.label} was refused while {len(held)} turns at most were unfinished"


def others_go_on(case: Case) -> Iterator[str]:
    """A turn ends soon, once those before it have, whatever other sessions and broken workers do."""
    ends = case.ends()
    ordered = sorted(end for end in ends.values() if end < FOREVER)
    for label, end in ends.items():
        turn = case.history.turns[label]
        if not turn.is_accepted or end == FOREVER:
            continue
        before = max((other for other in ordered if other < end), default=0.0)
        waited = min(
            end - max(turn.accepted, before, listener.began)
            for listener in case.prompt_listeners()
            if listener.label == label and listener.terminal is not None
        )
        if waited > case.terms.patience + turn.script.seconds:
            yield f"{label} was the next of its session for {waited:.1f} s"


def _may_have_acted(messages: list[Message]) -> bool:
    return any(call.name not in READ_ONLY for message in messages for call in message.tool_calls)


def _may_be_committed(turn: Turn, outcomes: Mapping[str, list[TerminalEvent]]) -> bool:
    """Whether its commit is one that nobody heard of."""
    return turn.label not in outcomes and len(turn.offers) > len(turn.refusals)


def _may_be_unfinished(turn: Turn, outcomes: Mapping[str, list[TerminalEvent]]) -> bool:
    if turn.label in outcomes:
        return not isinstance(outcomes[turn.label][0], RunCompleted)
    return turn.script.fails or turn.has_raised or turn.cancel_asked


def _is_beginning(found: list[tuple[str, ...]], expected: list[tuple[str, ...]]) -> bool:
    """Whether a run that was ended has said so; what it was about to say may be there in part."""
    if found[-1] == ("assistant",):
        found = found[:-1]
    return found == expected[: len(found)] and found[-1][0] != "assistant"


def _may_hold_a_place(turn: Turn, end: float, at: float, patience: float) -> bool:
    if len(turn.offers) == len(turn.refusals) or turn.invoked > at:
        return False
    return end > at - patience or any(at - patience < offer < at for offer in turn.offers)


def _is_lost(terminal: TerminalEvent) -> bool:
    return isinstance(terminal, RunFailed) and terminal.code == "journal_lost"


def _may_be_lost(case: Case, turn: Turn) -> bool:
    """Whether an operator took away what its run had said, or may have."""
    return any(fault.name == "events_deleted" for fault in case.faults(turn.invoked, FOREVER))


def _misfit(turn: Turn, terminal: TerminalEvent) -> str | None:
    match terminal:
        case RunCompleted():
            return "was completed although its model fails" if turn.script.fails else None
        case RunFailed(code="model_error") if turn.script.fails:
            return None
        case RunFailed(code="attempts_exhausted"):
            return None  # judged by itself
        case RunFailed() if turn.has_raised:
            return None
        case RunCancelled() if turn.cancel_asked:
            return None
        case _:
            return f"ended as {terminal}"


CHECKS: tuple[Check, ...] = (
    accepted_turn_ends,
    one_terminal_event,
    outcome_has_a_cause,
    interruptions_do_not_count,
    committed_once,
    completed_is_committed,
    explicit_refusal,
    session_order,
    version_is_place,
    history_is_whole,
    read_after_end,
    cancel_ends_run,
    place_comes_back,
    others_go_on,
)
