"""A crowd that wants to speak in one moment is let through in groups."""

import asyncio
from collections import deque

from nats.aio.client import Client as Connection

GROUP = 24
"""Tasks let through at a time."""
ROOM = 8 << 10
"""Bytes that may be left to be sent while there is still room for more."""
_PATIENCE = 64  # rounds of the event loop: a broker that is slow may leave more than that for long


class Turnstile:
    """`await turnstile.passed()` before something is published that others may publish at the same moment.

    nats-py sends once every task that is ready has had its say. Of hundreds that begin in one moment the
    first would wait for the last, and the broker and the workers would have nothing to do meanwhile.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._rounds = 0
        self._is_admitting = False

    async def passed(self) -> None:
        """Returns at once, unless much is left to be sent: then after those that came before."""
        if not self._is_admitting and self._has_room():
            return
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._waiting.append(turn)
        if not self._is_admitting:
            self._is_admitting = True
            self._rounds = 0
            loop.call_soon(self._admit)
        await turn

    def _admit(self) -> None:
        """Once a round of the event loop, in which what the last group said may have left."""
        self._rounds += 1
        group = 0
        if self._has_room():
            self._rounds, group = 0, GROUP
        elif self._rounds > _PATIENCE:
            group = len(self._waiting)
        # Also after the last group: it goes on in the next round, and nobody may overtake it in this one.
        self._is_admitting = bool(self._waiting)
        for _ in range(min(group, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():  # who was cancelled is not there any more
                turn.set_result(None)
        if self._is_admitting:
            asyncio.get_running_loop().call_soon(self._admit)

    def _has_room(self) -> bool:
        return self._connection.pending_data_size < ROOM or not self._connection.is_connected
