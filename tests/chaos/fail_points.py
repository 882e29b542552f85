"""Points in a turn at which this worker process kills or pauses itself, once told to; and what it counts.

All is done by wrapping functions of the product in this process: the product has no hooks for tests.
"""

import functools
import os
import signal
from collections.abc import Callable
from typing import Any

from atto.protocol.errors import ConcurrentWrite
from atto_workers import ownership, steward
from atto_workers.run import commit, ending, tool_calls
from tests.chaos.records import Line, Recorder, now

POINTS = (
    "before_load",
    "in_model_stream",
    "before_append",
    "before_effect",
    "after_effect",
    "before_save",
    "after_save",
    "before_ack",
)
"""`before_append`: the stream does not know yet that a call begins; `before_effect`: it does, if it must."""
PAUSED = "paused"
"""What this process says to its parent right before it pauses."""


class Died(Line, frozen=True, kw_only=True, tag="died"):
    """The process is about to kill itself at `point`."""

    point: str


class Took(Line, frozen=True, kw_only=True, tag="took"):
    """A partition of a worker that was taken for dead is taken over."""

    consumer: str


class Fenced(Line, frozen=True, kw_only=True, tag="fenced"):
    """A save was refused, or a partition found lost."""

    why: str


WorkerLine = Died | Took | Fenced


class FailPoints:
    """`pass_` is called wherever a turn passes a point; `arm` makes the next passage the last, or a pause."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._armed = ""
        self._is_pause = False

    def arm(self, point: str, *, is_pause: bool = False) -> None:
        """A name that is none of `POINTS` disarms."""
        self._armed, self._is_pause = point, is_pause

    def pass_(self, point: str) -> None:
        if point != self._armed:
            return
        if self._is_pause:
            self._armed = ""
            print(PAUSED, flush=True)  # noqa: T201 - to the parent
            os.kill(os.getpid(), signal.SIGSTOP)
            return
        self._recorder.add_now(Died(t=now(), point=point))
        os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Puts those points into the product that are not in the model or in a tool."""
        wrap(commit, "load", before=lambda *_: self.pass_("before_load"))
        wrap(
            commit,
            "save",
            before=lambda *_: self.pass_("before_save"),
            after=lambda: self.pass_("after_save"),
        )
        wrap(
            tool_calls.ToolCalls,
            "_begin",
            before=lambda *_: self.pass_("before_append"),
            after=lambda: self.pass_("before_effect"),
        )
        wrap(ending.Ending, "acknowledge", before=lambda *_: self.pass_("before_ack"))


def count_fencing(recorder: Recorder) -> None:
    """Writes down takeovers, refused saves and lost partitions."""

    def removing(self: ownership.Ownership, consumer: str) -> None:
        if consumer.split("-")[1] != self._worker:
            recorder.add(Took(t=now(), consumer=consumer))

    def refused(error: BaseException) -> None:
        if isinstance(error, ConcurrentWrite):
            recorder.add(Fenced(t=now(), why="refused"))

    wrap(ownership.Ownership, "remove", before=removing)
    wrap(commit, "save", failed=refused)
    replaced(
        steward.Steward,
        "_lose",
        lambda lose: lambda *arguments: (recorder.add(Fenced(t=now(), why="lost")), lose(*arguments))[1],
    )


def wrap(
    owner: Any,
    name: str,
    *,
    before: Callable[..., object] = lambda *_: None,
    after: Callable[[], object] = lambda: None,
    failed: Callable[[BaseException], object] = lambda _: None,
) -> None:
    """Wraps a coroutine function of a module or a class."""

    def wrapper(function: Any) -> Any:
        @functools.wraps(function)
        async def wrapped(*arguments: Any, **keywords: Any) -> Any:
            before(*arguments)
            try:
                result = await function(*arguments, **keywords)
            except BaseException as error:
                failed(error)
                raise
            after()
            return result

        return wrapped

    replaced(owner, name, wrapper)


def replaced(owner: Any, name: str, wrapper: Callable[[Any], Any]) -> None:
    """Replaces a function; AttributeError if the product has it no longer: no point is lost unseen."""
    setattr(owner, name, wrapper(getattr(owner, name)))
