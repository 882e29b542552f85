"""Waits that end after a while, whoever else may end them before."""

import asyncio
import math

COARSENESS = 0.02
"""Seconds by which a wait may last longer than it was told to."""


class Patience:
    """Ends waits that last too long, with one timer for all of them.

    Nearly every wait is over long before its time, and a timer of its own would cost it as much as all else
    that it does. So the timer goes off when the first deadline that was given comes, whether or not that wait
    still lasts, and then is set to the first of those that do.
    """

    def __init__(self) -> None:
        self._deadlines: dict[asyncio.Future[bool], float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    async def wait(self, waiter: asyncio.Future[bool], seconds: float) -> bool:
        """What `waiter` is told; False if that takes more than so many seconds."""
        deadline = asyncio.get_running_loop().time() + seconds
        self._deadlines[waiter] = deadline
        if deadline < self._rings_at:
            self._set(deadline)
        try:
            return await waiter
        finally:
            del self._deadlines[waiter]

    def close(self) -> None:
        """Ends no wait any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = None, math.inf

    def _set(self, deadline: float) -> None:
        self.close()
        self._timer = asyncio.get_running_loop().call_at(deadline, self._ring)
        self._rings_at = deadline

    def _ring(self) -> None:
        self.close()
        now = asyncio.get_running_loop().time()
        first = math.inf
        for waiter, deadline in self._deadlines.items():
            if deadline > now:
                first = min(first, deadline)
            elif not waiter.done():
                waiter.set_result(False)
        if first < math.inf:
            self._set(max(first, now + COARSENESS))
