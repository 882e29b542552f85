"""Ending a piece of a task's work from outside."""

import asyncio
from types import TracebackType
from typing import Self

REPEAT = 1.0
"""Seconds after which a body that has not ended is cancelled again."""


class Interruption:
    """`with Interruption() as body`, then `body.interrupt()` from anywhere in the event loop.

    The body is cancelled, again and again until it ends, and the `with` swallows these cancellations, but no
    other: `is_interrupted` tells whether the body ended by one. What `asyncio.timeout` does, without its
    timer, which hardly any run needs. `repeat`: seconds between the cancellations.
    """

    is_interrupted = False

    def __init__(self, *, repeat: float = REPEAT) -> None:
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._next: asyncio.Handle | None = None
        self._cancels = 0
        self._repeat = repeat

    def interrupt(self) -> None:
        """Soon, since the caller may be the body itself; nothing if the body has ended by then."""
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._cancel)

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
        if self._next is not None:
            self._next.cancel()
        if self._cancels and task is not None:
            for _ in range(self._cancels):
                task.uncancel()
            self.is_interrupted = task.cancelling() <= self._cancelling and kind is asyncio.CancelledError
        return self.is_interrupted

    def _cancel(self) -> None:
        if self._task is not None:
            self._cancels += 1
            self._task.cancel()
            self._next = asyncio.get_running_loop().call_later(self._repeat, self._cancel)
