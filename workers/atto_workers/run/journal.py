"""What a run's events say of how far it came: where a new attempt goes on."""

import contextlib
from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

import msgspec
from msgspec import Struct, field

from atto.broker.jetstream import JetStream, Stored
from atto.protocol import codec
from atto.protocol.errors import InvalidTurn
from atto.protocol.events import (
    AgentCompleted,
    AgentStarted,
    AnyEvent,
    EventBatch,
    ModelCompleted,
    ReasoningDelta,
    RunCompleted,
    RunInterrupted,
    StepRestarted,
    TerminalEvent,
    TextDelta,
    ToolCompleted,
    ToolStarted,
    is_delta,
    is_terminal,
)
from atto.protocol.merge import Merger
from atto.protocol.messages import Usage
from atto.protocol.paths import is_voided

SILENT = "its worker was blocked, paused or cut off"
"""Why a run was interrupted, as the successor of a worker tells that lived perhaps, and said nothing."""


class StepDone(NamedTuple):
    """A completed model call, and what its tool calls gave, in the order in which they ended.

    `started`: the ids of calls that were begun; one without a result may have had its effect.
    """

    model: ModelCompleted
    results: dict[str, ToolCompleted]
    started: set[str]


class Progress(Struct):
    """How far a run came, or one of its children.

    `attempt`: the number of the newest attempt, 0 if there was none; `attempts`: how many there were;
    `interrupted`: those of them that their worker let go of, and so are not the turn's fault; `silent`: those
    of them whose worker said nothing any more, as its successor told. `is_let_go`: the newest attempt is
    one of either. `next`: the first number that no event stands under. A new attempt speaks from there: what
    lies beyond a hole is void, for no listener would ever get past the hole.
    `messages`: all that was read; `read_to`: the stream's sequence of the last of them. `fence`: that of the
    fence which this worker wrote before it read; 0 if it read nothing. `lost`: why the journal may have held
    more than that, in words; None if it cannot. `children`: how far each child of the run
    came, by path. `answer`: of a child that has ended. `recorded`: the number of the last record.
    `said_at`: when the newest message came, in seconds of the broker's clock.
    `words`: the text of the step that is not done yet, in pieces.
    """

    attempt: int = 0
    attempts: int = 0
    interrupted: int = 0
    silent: int = 0
    is_let_go: bool = False
    next: int = 1
    steps: list[StepDone] = field(default_factory=list[StepDone])
    terminal: TerminalEvent | None = None
    messages: list[bytes] = field(default_factory=list[bytes])
    read_to: int = 0
    fence: int = 0
    lost: str | None = None
    children: dict[str, "Progress"] = field(default_factory=dict[str, "Progress"])
    answer: AgentCompleted | None = None
    recorded: int = 0
    said_at: float = 0.0
    words: list[str] = field(default_factory=list[str])

    @property
    def own_usage(self) -> Usage:
        """What its completed model calls cost, without those of children."""
        return sum((done.model.usage for done in self.steps), Usage())

    def usage_below(self, path: str) -> Usage:
        """What the completed model calls of the child at `path` cost, and of its own children."""
        if not self.children:
            return Usage()
        below = (
            progress.own_usage
            for at, progress in self.children.items()
            if at == path or at.startswith(f"{path}/")
        )
        return sum(below, Usage())

    def child(self, path: str) -> "Progress | None":
        """How far the child at `path` came; None if it has not begun."""
        return self.children.get(path)

    @property
    def was_in_step(self) -> int:
        """The step that the next model call would be of."""
        return len(self.steps) + 1


async def read_progress(jetstream: JetStream, stream: str, subject: str) -> Progress:
    """Reads the run's events. Raises `BrokerUnavailable`, `BrokerRefused`."""
    batches: list[EventBatch] = []
    messages: dict[bytes, None] = {}  # those that were published again once only
    read_to = 0
    newest: Stored | None = None
    unreadable: str | None = None
    async with contextlib.aclosing(jetstream.read_to_end(stream, subject)) as reading:
        async for stored in reading:
            read_to, newest = stored.sequence, stored
            try:
                batches.append(codec.decode_batch(stored.data))
            except InvalidTurn as error:
                unreadable = str(error)
            else:
                messages[stored.data] = None
    progress = fold(batches)
    if unreadable is not None:
        progress.lost = f"a part of the run's events cannot be read: {unreadable}"
    progress.messages = list(messages)
    progress.read_to = read_to
    if newest is not None:
        progress.said_at = msgspec.convert(newest.headers["Nats-Time-Stamp"], datetime).timestamp()
    return progress


def fold(batches: list[EventBatch]) -> Progress:
    """What the batches of a run, in any order, add up to; what is void or comes after a hole is left out.

    But for the end of a run without a commit, which stands; one with a commit is told again. And where calls
    of tools come after a hole, or the beginning is gone, the journal is `lost`: more was done than it tells.
    """
    merger = Merger()
    said: list[AnyEvent] = []
    progress = Progress()
    for batch in batches:
        progress.attempt = max(progress.attempt, batch.attempt)
        _add(said, merger.add(batch))
    if merger.must_reread:
        for batch in batches:
            _add(said, merger.add(batch))
    if any(map(_tells_of_a_call, merger.waiting)):
        # Calls are published when all before them is stored: what is missing has expired. Else it was lost
        # with a connection, and the step is done again.
        _add(said, merger.skip())
    progress.next = said[-1].seq + 1 if said else 1
    progress.recorded = next((event.seq for event in reversed(said) if not is_delta(event)), 0)
    progress.attempts = len({batch.attempt for batch in batches})
    for event in said:
        _apply(progress, event)
    beyond = list(merger.waiting)
    for event in beyond:
        if is_terminal(event) and not isinstance(event, RunCompleted):
            progress.terminal = event
    is_beheaded = not said and not _may_begin(batches, beyond)
    if is_beheaded or any(map(_tells_of_a_call, beyond)):
        progress.lost = "a part of the run's events has expired, or was removed"
    return progress


def _may_begin(batches: list[EventBatch], beyond: list[AnyEvent]) -> bool:
    """Whether nothing was done before what is there: an attempt that only wrote its fence, or first words
    that outlived the message before them, which went down with its connection.
    """
    return all(batch.since == 1 for batch in batches) and all(map(_is_of_first_words, beyond))


def _tells_of_a_call(event: AnyEvent) -> bool:
    return isinstance(event, ToolStarted | ToolCompleted)


def _is_of_first_words(event: AnyEvent) -> bool:
    return isinstance(event, TextDelta | ReasoningDelta | ModelCompleted) and event.step == 1


def _add(said: list[AnyEvent], events: Iterable[AnyEvent]) -> None:
    """A number that comes again voids what was said from it on."""
    for event in events:
        while said and said[-1].seq >= event.seq:
            said.pop()
        said.append(event)


def _apply(progress: Progress, event: AnyEvent) -> None:  # noqa: C901 - a case each kind of event
    """`progress`: of the run."""
    progress.is_let_go = isinstance(event, RunInterrupted)
    at = progress if not event.path else progress.children.get(event.path)
    match event:
        case AgentStarted():
            progress.children[event.path] = Progress(attempts=1, children=progress.children)
        case AgentCompleted() if at is not None:
            at.answer = event
        case ModelCompleted() if at is not None:
            at.steps.append(StepDone(event, {}, set()))
            at.words.clear()
        case TextDelta() if at is not None:
            at.words.append(event.text)
        case ToolStarted() if at is not None and event.step <= len(at.steps):
            at.steps[event.step - 1].started.add(event.call_id)
        case ToolCompleted() if at is not None and event.step <= len(at.steps):
            at.steps[event.step - 1].results[event.call_id] = event
        case RunInterrupted():
            progress.interrupted += 1
            progress.silent += event.reason == SILENT
        case StepRestarted() if at is not None:
            del at.steps[event.step - 1 :]
            at.words.clear()
            for path in [path for path in progress.children if is_voided(path, event.path, event.step)]:
                del progress.children[path]
        case _ if is_terminal(event):
            progress.terminal = event
        case _:
            pass
