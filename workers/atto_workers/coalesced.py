"""One round trip for all who ask at the same time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Coalesced(Generic[T]):
    """`await coalesced()`: the outcome of a call of `ask` that began after this one, shared by all who wait
    for it. At most one call is under way, and at most one is next.

    `tasks` owns the calls: a caller that is cancelled leaves the others theirs.
    """

    def __init__(self, ask: Callable[[], Awaitable[T]], tasks: asyncio.TaskGroup) -> None:
        self._ask = ask
        self._tasks = tasks
        self._current: asyncio.Task[T | Exception] | None = None
        self._next: asyncio.Task[T | Exception] | None = None

    async def __call__(self) -> T:
        """Raises what `ask` raises."""
        if self._next is None:
            self._next = self._tasks.create_task(self._call(self._current), name="coalesced call")
        outcome = await asyncio.shield(self._next)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _call(self, before: asyncio.Task[T | Exception] | None) -> T | Exception:
        if before is not None:
            await asyncio.wait([before])
        self._current, self._next = self._next, None
        try:
            return await self._ask()
        except Exception as error:  # noqa: BLE001 - for the callers; here it would end the whole group
            return error
