"""Pauses between tries: longer each time, up to a cap, and never the same for two that wait together."""

import asyncio
import random
from collections.abc import Awaitable, Callable

BASE = 0.1
"""Seconds of the first pause, at the most."""
CAP = 2.0
"""Seconds of any pause, at the most."""


class Backoff:
    """`while True: try …; await backoff.pause()`.

    A pause lasts between half of its ceiling and all of it; the ceiling doubles from `base` to `cap`, in
    seconds. `until` says when waiting has lost its sense: then `pause` returns False, without a pause.
    """

    def __init__(
        self,
        *,
        base: float = BASE,
        cap: float = CAP,
        until: Callable[[], bool] = lambda: False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._base = base
        self._cap = cap
        self._until = until
        self._sleep = sleep
        self._jitter = jitter
        self._ceiling = base

    def reset(self) -> None:
        """The next pause is the shortest again."""
        self._ceiling = self._base

    async def pause(self) -> bool:
        """Whether to try again."""
        if self._until():
            return False
        ceiling, self._ceiling = self._ceiling, min(self._cap, 2 * self._ceiling)
        await self._sleep(self._jitter(ceiling / 2, ceiling))
        return not self._until()
