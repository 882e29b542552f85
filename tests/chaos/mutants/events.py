"""Mutants of what a run says."""

from typing import Any

from msgspec.structs import replace

from atto.protocol.events import RunInterrupted, StepRestarted, TextDelta
from atto_workers.run import attempts, log, retelling
from tests.chaos.fail_points import replaced

ONE_IN = 5
"""Deltas, of which one is lost."""


def no_voiding() -> None:
    """Listeners are never told to drop what was said of a step."""
    _unsaid(lambda event: isinstance(event, StepRestarted))


def lost_deltas() -> None:
    """Some pieces of answers are not said."""
    count = 0

    def is_lost(event: object) -> bool:
        nonlocal count
        count += isinstance(event, TextDelta)
        return isinstance(event, TextDelta) and count % ONE_IN == 0

    _unsaid(is_lost)


def interruptions_unsaid() -> None:
    """A worker that lets go of a run does not say so: the attempt counts."""
    _unsaid(lambda event: isinstance(event, RunInterrupted))


def begins_at_one() -> None:
    """Every attempt numbers its events from 1, whatever was said before."""

    def wrapper(log_of_next: Any) -> Any:
        def made(self: Any, delivery: Any, progress: Any) -> Any:
            return log_of_next(self, delivery, replace(progress, next=1))

        return made

    replaced(attempts.Attempts, "log_of_next", wrapper)


def wrong_version() -> None:
    """A completed run tells the version before its own."""

    def wrapper(completed: Any) -> Any:
        def told(*arguments: Any, **keywords: Any) -> Any:
            event = completed(*arguments, **keywords)
            return replace(event, version=event.version - 1)

        return told

    replaced(retelling, "completed", wrapper)


def _unsaid(is_unsaid: Any) -> None:
    def wrapper(append: Any) -> Any:
        def appended(self: log.RunLog, event: Any, *encoded: Any) -> None:
            if not is_unsaid(event):
                append(self, event, *encoded)

        return appended

    replaced(log.RunLog, "append", wrapper)
