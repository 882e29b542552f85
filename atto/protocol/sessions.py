"""Sessions: what is committed of them, and how it is asked for."""

from typing import Any

from msgspec import Struct

from atto.protocol.events import StateChange
from atto.protocol.messages import Message
from atto.protocol.turns import SCHEMA_VERSION

RECENT_RUNS = 32
"""How many runs a snapshot remembers: the default backlog, which bounds what can be delivered again."""


class RunRecord(Struct, frozen=True, omit_defaults=True, gc=False):
    """A committed run: the guard against a second commit, and enough to answer again.

    `end`: how many messages the history had after it; the answer is the one before.
    """

    run_id: str
    end: int


class Commit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one turn adds to a session."""

    run_id: str
    messages: tuple[Message, ...]
    change: StateChange = StateChange()


class Snapshot(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session after a committed turn. Version 0 is a session without any.

    `token`: belongs to the store that made the snapshot. A snapshot does not travel whole; its pages do.
    """

    session: str
    version: int = 0
    messages: tuple[Message, ...] = ()
    state: dict[str, Any] = {}
    runs: tuple[RunRecord, ...] = ()
    token: Any = None

    def record(self, run_id: str) -> RunRecord | None:
        """The record of a recently committed run."""
        return next((record for record in reversed(self.runs) if record.run_id == run_id), None)

    def answer(self, record: RunRecord) -> Message:
        """What the run of `record` answered."""
        return self.messages[record.end - 1]

    def version_of(self, record: RunRecord) -> int:
        """The version that the run of `record` made: each version has one record."""
        return self.version - (len(self.runs) - 1 - self.runs.index(record))

    def after(self, commit: Commit, *, token: Any = None) -> "Snapshot":
        """The snapshot that this one becomes with `commit`; this one stays as it is."""
        messages = self.messages + commit.messages
        return Snapshot(
            session=self.session,
            version=self.version + 1,
            messages=messages,
            state=apply(self.state, commit.change),
            runs=(*self.runs[-(RECENT_RUNS - 1) :], RunRecord(commit.run_id, len(messages))),
            token=token,
        )


def apply(state: dict[str, Any], change: StateChange) -> dict[str, Any]:
    """A new state: `state` with `change`."""
    if not (change.set or change.unset):
        return state
    changed = {**state, **change.set}
    for key in change.unset:
        changed.pop(key, None)
    return changed


def compose(first: StateChange, second: StateChange) -> StateChange:
    """The one change that is `first`, then `second`."""
    if not (first.set or first.unset):
        return second
    kept = {key: value for key, value in first.set.items() if key not in second.unset}
    removed = tuple(key for key in first.unset if key not in second.set and key not in second.unset)
    return StateChange(set={**kept, **second.set}, unset=removed + second.unset)


class SnapshotPage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Part of the answer to a request to `<ns>.snapshot.<session>`; the pages come in order, until `last`.

    Each holds some of the messages; the first one holds the rest as well. Version 0: no such session.
    `error`: the snapshot could not be read, and why.
    """

    version: int = 0
    messages: tuple[Message, ...] = ()
    state: dict[str, Any] = {}
    runs: tuple[RunRecord, ...] = ()
    last: bool = True
    error: str = ""
    v: int = SCHEMA_VERSION
