"""Stopping a run from outside, for a named reason."""

import asyncio
import enum
from types import TracebackType
from typing import Self

from atto_workers.interruption import Interruption


class StopReason(enum.Enum):
    """Why a run ends before it is through."""

    CANCELLED = "cancelled by a caller"
    EXPIRED = "its deadline has passed"
    LOST = "another worker owns the partition now"
    HANDED_BACK = "the worker lets go of the partition"


class Stopped(Exception):
    """The run was stopped; its turn ends as `reason` says."""

    def __init__(self, reason: StopReason, detail: str = "") -> None:
        super().__init__(reason.value)
        self.reason = reason
        self.detail = detail


class RunScope:
    """`with scope`: the body can be stopped at any of its awaits, and is at the deadline.

    A stop before the body begins is kept until then; the first stop wins; one after the body has ended does
    nothing to it. A body that swallows its cancellation is cancelled again, and stops at the next `check`.
    May be entered again. `deadline` is in the event loop's time. Raises `Stopped`.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self._body: Interruption | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._stop: Stopped | None = None

    def stop(self, reason: StopReason, detail: str = "") -> None:
        """Cancels the body, now or as soon as it begins."""
        if self._stop is None:
            self._stop = Stopped(reason, detail)
            if self._body is not None:
                self._body.interrupt()

    def check(self) -> None:
        """Raises `Stopped` if the body was stopped, whatever became of its cancellation."""
        if self._stop is not None:
            raise self._stop

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if self.deadline is not None and self.deadline <= loop.time():
            self.stop(StopReason.EXPIRED)
        self.check()
        self._body = Interruption().__enter__()
        if self.deadline is not None:
            self._timer = loop.call_at(self.deadline, self.stop, StopReason.EXPIRED)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        body, self._body = self._body, None
        if self._timer is not None:
            self._timer.cancel()
        if body is not None and body.__exit__(kind, error, trace):
            raise (self._stop or Stopped(StopReason.EXPIRED)) from None
