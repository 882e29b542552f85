"""What a run's events say of how far it came: where a new attempt goes on."""

import contextlib
import itertools
from typing import NamedTuple

from msgspec import Struct, field

from atto.broker.jetstream import JetStream
from atto.protocol import codec
from atto.protocol.errors import InvalidTurn
from atto.protocol.events import (
    AgentEvent,
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
    is_terminal,
)
from atto.protocol.messages import Usage
from atto_client.merge import Merger

SILENT = "its worker was blocked, paused or cut off"
"""Why a run was interrupted, as the successor of a worker tells that lived perhaps, and said nothing."""


class StepDone(NamedTuple):
    """A completed model call, and what its tool calls gave, in the order in which they ended.

    `started`: the ids of calls that were begun; one without a result may have had its effect. `asked`: how
    far the agents came that calls asked.
    """

    model: ModelCompleted
    results: dict[str, ToolCompleted]
    started: set[str]
    asked: dict[str, "Progress"]


class Progress(Struct):
    """How far a run came.

    `attempt`: the number of the newest attempt, 0 if there was none; `attempts`: how many there were;
    `interrupted`: those of them that their worker let go of, and so are not the turn's fault; `silent`: those
    of them whose worker said nothing any more, as its successor told. `is_let_go`: the newest attempt is
    one of either. `next`: the first number that no event stands under. A new attempt speaks from there: what
    lies beyond a hole is void, for no listener would ever get past the hole.
    `messages`: all that was read; `read_to`: the stream's sequence of the last of them. `fence`: that of the
    fence which this worker wrote before it read; 0 if it read nothing. `lost`: why the journal may have held
    more than that, in words; None if it cannot.
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

    @property
    def usage(self) -> Usage:
        """What all completed model calls cost, those of asked agents included."""
        return sum(
            (sum((asked.usage for asked in done.asked.values()), done.model.usage) for done in self.steps),
            Usage(),
        )

    @property
    def was_in_step(self) -> int:
        """The step that the next model call would be of."""
        return len(self.steps) + 1


async def read_progress(jetstream: JetStream, stream: str, subject: str) -> Progress:
    """Reads the run's events. Raises `BrokerUnavailable`, `BrokerRefused`."""
    batches: list[EventBatch] = []
    messages: dict[bytes, None] = {}  # those that were published again once only
    read_to = 0
    async with contextlib.aclosing(jetstream.read_to_end(stream, subject)) as reading:
        async for stored in reading:
            read_to = stored.sequence
            with contextlib.suppress(InvalidTurn):
                batches.append(codec.decode_batch(stored.data))
                messages[stored.data] = None
    progress = fold(batches)
    progress.messages = list(messages)
    progress.read_to = read_to
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
        for event in merger.add(batch):
            del said[event.seq - 1 :]
            said.append(event)
    if merger.must_reread:
        for event in itertools.chain.from_iterable(map(merger.add, batches)):
            del said[event.seq - 1 :]
            said.append(event)
    progress.next = len(said) + 1
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


def _is_of_first_words(event: AnyEvent) -> bool:
    return isinstance(event, TextDelta | ReasoningDelta | ModelCompleted) and event.step == 1


def _tells_of_a_call(event: AnyEvent) -> bool:
    while isinstance(event, AgentEvent):
        event = event.event
    return isinstance(event, ToolStarted | ToolCompleted)


def _apply(progress: Progress, event: AnyEvent) -> None:
    progress.is_let_go = isinstance(event, RunInterrupted)
    match event:
        case ModelCompleted():
            progress.steps.append(StepDone(event, {}, set(), {}))
        case ToolStarted() if event.step <= len(progress.steps):
            progress.steps[event.step - 1].started.add(event.call.id)
        case ToolCompleted() if event.step <= len(progress.steps):
            progress.steps[event.step - 1].results[event.call_id] = event
        case AgentEvent() if event.step <= len(progress.steps):
            asked = progress.steps[event.step - 1].asked.setdefault(event.call_id, Progress(attempts=1))
            _apply(asked, event.event)
        case RunInterrupted():
            progress.interrupted += 1
            progress.silent += event.reason == SILENT
        case StepRestarted():
            del progress.steps[event.step - 1 :]
        case _ if is_terminal(event):
            progress.terminal = event
        case _:
            pass
