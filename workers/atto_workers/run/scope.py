"""Stopping a run from outside, for a named reason."""

import asyncio
import enum
from types import TracebackType
from typing import Self


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
    """`async with scope`: the body can be stopped at any of its awaits, and is at the deadline.

    A stop before the body begins is kept until then; the first stop wins; one after the body has ended does
    nothing to it. May be entered again. `deadline` is in the event loop's time. Raises `Stopped`.
    """

    def __init__(self, deadline: float | None = None) -> None:
        self.deadline = deadline
        self._timeout: asyncio.Timeout | None = None
        self._stop: Stopped | None = None

    def stop(self, reason: StopReason, detail: str = "") -> None:
        """Cancels the body, now or as soon as it begins."""
        if self._stop is None:
            self._stop = Stopped(reason, detail)
            if self._timeout is not None and not self._timeout.expired():
                self._timeout.reschedule(asyncio.get_running_loop().time())

    async def __aenter__(self) -> Self:
        if self.deadline is not None and self.deadline <= asyncio.get_running_loop().time():
            self.stop(StopReason.EXPIRED)
        if self._stop is not None:
            raise self._stop
        self._timeout = await asyncio.timeout_at(self.deadline).__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        timeout, self._timeout = self._timeout, None
        if timeout is None:
            return
        try:
            await timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise (self._stop or Stopped(StopReason.EXPIRED)) from None
