"""Sessions: what is committed of them, and how it is asked for."""

from typing import Any, Literal

from msgspec import Struct

from atto.protocol.events import StateChange
from atto.protocol.messages import Message, Usage
from atto.protocol.turns import SCHEMA_VERSION
from atto.protocol.waits import Wait

RECENT_RUNS = 32
"""How many runs a snapshot remembers: the default backlog, which bounds what can be delivered again."""

Ended = Literal["completed", "suspended", "cancelled", "failed"]
"""How a run ended."""

Record = dict[str, Any]
"""One journal record of a run that has not ended, as JSON: stores keep it and do not look into it."""


class RunRecord(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A run that has ended: the guard against a second commit, and enough to tell its terminal event again.

    Attributes:
        run_id: The run.
        version: The version of the session that its commit made.
        begin: How many messages the history had before it.
        end: How many it had after it; a completed run's answer is the one before.
        ended: How it ended.
        code: Why it failed, for programs, as in `RunFailed`.
        reason: Why it failed or was cancelled, for people.
        retryable: Whether the same input may succeed later, as in `RunFailed`.
        input: What was asked, for people: of a run that left no messages.
        usage: What its model calls cost, if that is known.
        agent: The agent that answered.
        absorbed: The runs whose input it took in.
        root: The run that began a chain of suspensions; empty for a run that is its own root.

    """

    run_id: str
    version: int
    begin: int
    end: int
    ended: Ended = "completed"
    code: str = ""
    reason: str = ""
    retryable: bool = False
    input: str = ""
    usage: Usage | None = None
    agent: str = ""
    absorbed: tuple[str, ...] = ()
    root: str = ""


class Compaction(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What models see in the place of old messages.

    Attributes:
        upto: How many of the oldest messages `summary` stands for.
        cleared: How many of the oldest messages have their tool results left out.
        summary: In the place of the first `upto` messages.

    """

    upto: int = 0
    cleared: int = 0
    summary: str = ""


class Continuation(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where the next run of a session goes on from, beside history and state.

    Attributes:
        agent: The active agent; empty for the default one.
        root: The run that is suspended; empty if none is.
        waits: What that run waits for.
        compaction: What models see in the place of old messages.

    """

    agent: str = ""
    root: str = ""
    waits: tuple[Wait, ...] = ()
    compaction: Compaction | None = None


class Commit(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a run adds to a session: at its end, or in its middle as a checkpoint.

    Attributes:
        run_id: The run.
        messages: Appended to the history.
        change: Applied to the state.
        ended: How the run ended; None for a checkpoint, which adds journal records only.
        code: As of `RunRecord`, and so are `reason`, `retryable`, `input`, `usage`, `agent`,
            `absorbed` and `root`.
        records: Appended to the journal records.
        drop_records: Whether those that are there are dropped first.
        continuation: Takes the place of the session's; None leaves it as it is.

    """

    run_id: str
    messages: tuple[Message, ...] = ()
    change: StateChange = StateChange()
    ended: Ended | None = "completed"
    code: str = ""
    reason: str = ""
    retryable: bool = False
    input: str = ""
    usage: Usage | None = None
    agent: str = ""
    absorbed: tuple[str, ...] = ()
    root: str = ""
    records: tuple[Record, ...] = ()
    drop_records: bool = False
    continuation: Continuation | None = None

    def record(self, *, version: int, begin: int) -> RunRecord | None:
        """The record that it leaves in the session that it makes; None for a checkpoint."""
        if self.ended is None:
            return None
        return RunRecord(
            run_id=self.run_id,
            version=version,
            begin=begin,
            end=begin + len(self.messages),
            ended=self.ended,
            code=self.code,
            reason=self.reason,
            retryable=self.retryable,
            input=self.input,
            usage=self.usage,
            agent=self.agent,
            absorbed=self.absorbed,
            root=self.root,
        )


class Snapshot(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A session as it is committed. Version 0 is a session without any commit.

    Attributes:
        session: The session.
        version: How many commits it has had; every commit moves it by one.
        messages: The history.
        state: What its agents remember, by key.
        runs: The last runs that ended, the newest last.
        records: Journal records of a run that has not ended, in the order in which they were committed.
        continuation: Where the next run goes on from.
        token: Belongs to the store that made the snapshot. A snapshot does not travel whole; its pages do.

    """

    session: str
    version: int = 0
    messages: tuple[Message, ...] = ()
    state: dict[str, Any] = {}
    runs: tuple[RunRecord, ...] = ()
    records: tuple[Record, ...] = ()
    continuation: Continuation = Continuation()
    token: Any = None

    def record(self, run_id: str) -> RunRecord | None:
        """The record of a run that ended recently."""
        return next((record for record in reversed(self.runs) if record.run_id == run_id), None)

    def answer(self, record: RunRecord) -> Message:
        """What the completed run of `record` answered."""
        return self.messages[record.end - 1]

    def added_by(self, record: RunRecord) -> tuple[Message, ...]:
        """The run's part of the history."""
        return self.messages[record.begin : record.end]

    def after(self, commit: Commit, *, token: Any = None) -> "Snapshot":
        """The snapshot that this one becomes with `commit`; this one stays as it is."""
        version = self.version + 1
        record = commit.record(version=version, begin=len(self.messages))
        return Snapshot(
            session=self.session,
            version=version,
            messages=self.messages + commit.messages,
            state=apply(self.state, commit.change),
            runs=self.runs if record is None else (*self.runs[-(RECENT_RUNS - 1) :], record),
            records=(() if commit.drop_records else self.records) + commit.records,
            continuation=self.continuation if commit.continuation is None else commit.continuation,
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

    Each holds some of the messages; the first one holds the rest as well.

    Attributes:
        version: How many commits the session has had; 0: there is no such session.
        messages: Part of the history.
        state: What the session's agents remember, by key.
        runs: The last runs that ended, the newest last.
        agent: The active agent; empty for the default one.
        waits: What the session's suspended run waits for.
        compaction: What models see in the place of old messages.
        last: Whether this is the last page.
        error: Why the snapshot could not be read.

    """

    version: int = 0
    messages: tuple[Message, ...] = ()
    state: dict[str, Any] = {}
    runs: tuple[RunRecord, ...] = ()
    agent: str = ""
    waits: tuple[Wait, ...] = ()
    compaction: Compaction | None = None
    last: bool = True
    error: str = ""
    v: int = SCHEMA_VERSION
