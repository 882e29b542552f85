"""Ending a piece of a task's work from outside."""

import asyncio
from types import TracebackType
from typing import Self


class Interruption:
    """`with Interruption() as body`, then `body.interrupt()` from anywhere in the event loop.

    The body is cancelled, and the `with` swallows that cancellation, but no other: `is_interrupted` tells
    whether the body ended by it. What `asyncio.timeout` does, without its timer, which hardly any run needs.
    """

    is_interrupted = False

    def __init__(self) -> None:
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._soon: asyncio.Handle | None = None
        self._is_cancelled = False

    def interrupt(self) -> None:
        """Soon, since the caller may be the body itself; nothing if the body has ended by then."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_soon(self._cancel)

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        if self._task is None:
            raise RuntimeError("an interruption needs a task to interrupt")
        self._cancelling = self._task.cancelling()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        if self._soon is not None:
            self._soon.cancel()
        if self._is_cancelled and task is not None:
            is_last = task.uncancel() <= self._cancelling
            self.is_interrupted = is_last and kind is asyncio.CancelledError
        return self.is_interrupted

    def _cancel(self) -> None:
        if self._task is not None:
            self._is_cancelled = True
            self._task.cancel()
