"""What came of a chaos run: a table for people, and one JSON object for programs."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from atto.protocol.events import RunCancelled, RunCompleted, RunFailed
from tests.chaos import records
from tests.chaos.case import Case, Terms, make_case
from tests.chaos.checker import PROMISES, Violation, check
from tests.chaos.fail_points import Fenced, Took, WorkerLine
from tests.chaos.history import History
from tests.chaos.recovery import Recoveries, by_kind, percentiles

SHOWN = 40

_HEAD = """\
turns {turns:,} in {sessions:,} sessions, heard by {listeners:,} listeners
outcomes {outcomes}
takeovers {takeovers:,}, fenced writes {fenced_writes:,}, heard in several attempts {heard_several_attempts:,}
faults {faults_inflicted:,}, of which {faults_that_bit:,} bit

fault                      bit  stopped    p50 ms    p99 ms    max ms
"""


class Tally(Struct):
    """Counts over all sessions."""

    sessions: int = 0
    turns: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    listeners: int = 0
    again: int = 0
    effects: int = 0
    orphans: int = 0
    violations: list[Violation] = field(default_factory=list)

    def add(self, history: History, terms: Terms) -> None:
        case = make_case(history, terms)
        self.violations += check(case)
        self.sessions += 1
        self.turns += sum(turn.is_accepted for turn in history.turns.values())
        self.listeners += len(history.listeners)
        self.effects += len(history.effects)
        self.again += sum(heard.attempts > 1 for heard in case.standings.values())
        self.orphans += _orphans(case)
        for terminals in case.outcomes().values():
            self.outcomes[_kind(terminals[0])] += 1


def judge(histories: Iterable[History], terms: Terms, mishaps: list[Violation]) -> tuple[Tally, Recoveries]:
    """`mishaps`: of processes."""
    tally, recoveries = Tally(violations=[*mishaps]), Recoveries(list(terms.faults))
    recoveries.bit.update(number for number, fault in enumerate(terms.faults) if fault.is_certain)
    for history in histories:
        tally.add(history, terms)
        recoveries.add(history)
    return tally, recoveries


def summary(directory: Path, tally: Tally, recoveries: Recoveries) -> dict[str, Any]:
    takeovers, fenced = _worker_counts(directory)
    everything = [sample.seconds * 1000 for sample in recoveries.samples]
    return {
        "turns": tally.turns,
        "faults": dict(Counter(recoveries.faults[number].name for number in sorted(recoveries.bit))),
        "faults_inflicted": len(recoveries.faults),
        "faults_that_bit": len(recoveries.bit),
        "takeovers": takeovers,
        "fenced_writes": fenced,
        "recovery_ms": percentiles(everything),
        "recovery_by_kind": {
            kind: percentiles(values) for kind, values in sorted(by_kind(recoveries).items())
        },
        "outcomes": dict(tally.outcomes),
        "sessions": tally.sessions,
        "listeners": tally.listeners,
        "heard_several_attempts": tally.again,
        "effects": tally.effects,
        "effects_of_no_commit": tally.orphans,
        "violated": dict(Counter(violation.promise for violation in tally.violations)),
        "violations": len(tally.violations),
    }


def table(result: dict[str, Any]) -> str:
    """What a person wants to see first."""
    kinds, faults = result["recovery_by_kind"], result["faults"]
    rows = [(kind, faults.get(kind, 0), kinds.get(kind, {})) for kind in sorted({*faults, *kinds})]
    rows.append(("all, overlapping too", result["faults_that_bit"], result["recovery_ms"]))
    return _HEAD.format(**result) + "".join(
        f"{kind:<24}{count:>6}{row.get('n', 0):>9}"
        + "".join(f"{row.get(column, 0):>10,.0f}" for column in ("p50", "p99", "max"))
        + "\n"
        for kind, count, row in rows
    )


def violations(tally: Tally) -> str:
    """Which promises were broken, and the first cases of each: a flood of one does not hide the others."""
    kinds = Counter(violation.promise for violation in tally.violations)
    lines = [f"{count:>6} {kind}: {PROMISES[kind]}" for kind, count in kinds.most_common()]
    shown: Counter[str] = Counter()
    for violation in tally.violations:
        shown[violation.promise] += 1
        if shown[violation.promise] <= max(1, SHOWN // len(kinds)):
            lines.append(f"{violation.promise} [{violation.session}] {violation.detail[:2000]}")
    return "\n".join(lines)


def _worker_counts(directory: Path) -> tuple[int, int]:
    takeovers = fenced = 0
    for path in (directory / "workers").glob("*.jsonl"):
        for line in records.read_as(path, WorkerLine):
            takeovers += isinstance(line, Took)
            fenced += isinstance(line, Fenced)
    return takeovers, fenced


def _orphans(case: Case) -> int:
    """Effects of completed runs under keys that no committed call has."""
    labels = {turn.run: turn.label for turn in case.history.turns.values() if turn.run}
    committed = {
        turn.label: {call.id for message in turn.messages for call in message.tool_calls}
        for turn in case.committed
    }
    return sum(
        effect.call not in committed[labels[effect.run]]
        for effect in case.history.effects
        if labels.get(effect.run) in committed
    )


def _kind(terminal: object) -> str:
    match terminal:
        case RunCompleted():
            return "completed"
        case RunCancelled():
            return "cancelled"
        case RunFailed():
            return f"failed: {terminal.code}"
        case _:
            return type(terminal).__name__
