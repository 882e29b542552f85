"""The end of a committed run: its terminal event, and before it what its listeners did not hear."""

from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import NamedTuple

from msgspec import Struct

from atto.protocol.events import (
    ModelCompleted,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunSuspended,
    StepRestarted,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from atto.protocol.messages import InputPart, Message, ToolResultPart, Usage
from atto.protocol.sessions import RunRecord, Snapshot
from atto_workers.delivery import Problem
from atto_workers.run.journal import Progress
from atto_workers.run.log import RunLog
from atto_workers.run.outcome import DEAD, Outcome, now


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


def ended(
    log: RunLog,
    snapshot: Snapshot,
    record: RunRecord,
    *,
    told: list[ToldStep] | None,
    words: str = "",
) -> Outcome:
    """The end of a committed run, as its record says. `told`: the steps that its listeners heard whole; None:
    all. `words`: what they heard of the step after those.

    What is committed counts. Where it is not what was told (its worker died between the commit and its last
    events, or another worker was faster), the rest is told, or all anew from the first step that differs.
    """
    if told is not None and record.end > record.begin:
        _tell_rest(log, record, steps_of_messages(snapshot.added_by(record)), told, words)
    match record.ended:
        case "completed":
            return Outcome(
                RunCompleted(
                    seq=log.next,
                    time=now(),
                    message=snapshot.answer(record),
                    version=record.version,
                    usage=record.usage or Usage(),
                ),
                commits=False,
            )
        case "cancelled":
            terminal = RunCancelled(seq=log.next, time=now(), reason=record.reason, version=record.version)
            return Outcome(terminal, commits=False)
        case "suspended":
            waits = snapshot.continuation.waits
            terminal = RunSuspended(
                seq=log.next, time=now(), version=record.version, root=record.root, waits=waits
            )
            return Outcome(terminal, commits=False)
        case "failed":
            problem = Problem(record.code, record.reason)
            terminal = RunFailed(
                seq=log.next,
                time=now(),
                code=record.code,
                message=record.reason,
                retryable=record.retryable,
                version=record.version,
            )
            return Outcome(terminal, problem if record.code in DEAD else None, commits=False)


def _tell_rest(
    log: RunLog, record: RunRecord, committed: list[ToldStep], told: list[ToldStep], words: str
) -> None:
    """Nothing if all of it was told."""
    if committed == told:
        return
    known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(committed, told, strict=False)))
    if record.ended != "completed" and known == len(committed) - 1:
        last, heard = committed[known], told[known:]
        if not heard and not last.model.tool_calls and last.model.text == words:
            finish = record.ended
            log.append(ModelCompleted(seq=log.next, step=known + 1, message=last.model, finish=finish))
            return
        if len(heard) == 1 and heard[0].model == last.model and _is_part(heard[0].results, last.results):
            missing = {call: result for call, result in last.results.items() if call not in heard[0].results}
            _tell_results(log, known + 1, last.model, missing)
            return
    _tell_anew(log, committed, known)


def _is_part(heard: Mapping[str, _Result], results: Mapping[str, _Result]) -> bool:
    return all(results.get(call) == result for call, result in heard.items())


def _tell_anew(log: RunLog, committed: list[ToldStep], known: int) -> None:
    """From the first step on that is not one of the `known` ones."""
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
        if call.id in told.results:
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
            _tell_results(log, step, message, {call.id: told.results[call.id]})


def _tell_results(log: RunLog, step: int, message: Message, results: Mapping[str, _Result]) -> None:
    for call in message.tool_calls:
        if call.id in results:
            result = results[call.id]
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
