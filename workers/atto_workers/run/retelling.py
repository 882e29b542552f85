"""The end of a committed run: its terminal event, and before it what its listeners did not hear."""

from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import NamedTuple

from msgspec import Struct

from atto.protocol.events import (
    ModelCompleted,
    RunCompleted,
    StepRestarted,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from atto.protocol.messages import InputPart, Message, ToolResultPart, Usage
from atto.protocol.sessions import RunRecord, Snapshot
from atto_workers.run.journal import Progress
from atto_workers.run.log import RunLog
from atto_workers.run.outcome import now


class _Result(Struct, frozen=True):
    content: str | tuple[InputPart, ...]
    is_error: bool


class ToldStep(NamedTuple):
    """One step as messages tell it: what the model said, and what each of its calls gave, by call id."""

    model: Message
    results: Mapping[str, _Result]


def steps_of_messages(messages: Iterable[Message]) -> list[ToldStep]:
    """The steps in a part of a history."""
    steps: list[ToldStep] = []
    for message in messages:
        if message.role == "assistant":
            steps.append(ToldStep(message, {}))
        elif message.role == "tool" and steps:
            parts = [part for part in message.content if isinstance(part, ToolResultPart)]
            steps[-1] = ToldStep(
                steps[-1].model, {part.call_id: _Result(part.content, part.is_error) for part in parts}
            )
    return steps


def steps_of_progress(progress: Progress) -> list[ToldStep]:
    """The steps that a run's events tell."""
    return [
        ToldStep(
            done.model.message,
            {call: _Result(event.content, event.is_error) for call, event in done.results.items()},
        )
        for done in progress.steps
    ]


def is_told(snapshot: Snapshot, record: RunRecord, messages: tuple[Message, ...]) -> bool:
    """Whether the run added just these messages, as nearly all do."""
    return snapshot.messages[record.end - len(messages) : record.end] == messages


def completed(
    log: RunLog, snapshot: Snapshot, record: RunRecord, *, told: list[ToldStep] | None, usage: Usage
) -> RunCompleted:
    """The terminal event of a committed run. `told`: the steps that its listeners heard whole; None: all.

    What is committed counts. Where it is not what was told (its worker died between the commit and its last
    events, or another worker was faster), the steps from there on are told anew.
    """
    if told is not None:
        _tell_anew(log, steps_of_messages(snapshot.added_by(record)), told)
    return RunCompleted(
        seq=log.next,
        time=now(),
        message=snapshot.answer(record),
        version=record.version,
        usage=usage,
    )


def _tell_anew(log: RunLog, committed: list[ToldStep], told: list[ToldStep]) -> None:
    """From the first step on in which they differ; nothing if they do not."""
    if committed == told:
        return
    known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(committed, told, strict=False)))
    reason = "the run was committed by another worker"
    log.append(StepRestarted(seq=log.next, step=known + 1, reason=reason))
    for step, told_step in enumerate(committed[known:], known + 1):
        _tell(log, step, told_step)


def _tell(log: RunLog, step: int, told: ToldStep) -> None:
    message = told.model
    if message.text:
        log.append(TextDelta(seq=log.next, step=step, text=message.text))
    log.append(ModelCompleted(seq=log.next, step=step, message=message))
    for call in message.tool_calls:
        result = told.results.get(call.id)
        if result is not None:
            log.append(
                ToolStarted(
                    seq=log.next,
                    step=step,
                    call_id=call.id,
                    name=call.name,
                    arguments=call.arguments,
                    malformed=call.malformed,
                )
            )
            log.append(
                ToolCompleted(
                    seq=log.next,
                    step=step,
                    call_id=call.id,
                    name=call.name,
                    content=result.content,
                    is_error=result.is_error,
                )
            )
