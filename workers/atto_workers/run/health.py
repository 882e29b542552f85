"""How the stream of events takes what runs say: told to operators once that is in doubt for some seconds."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from atto.protocol.errors import BrokerRefused, BrokerUnavailable, NoResponders

PATIENCE = 2.0
"""Seconds of failures after which they are told: replicas elect a leader, a broker is restarted."""
PERIOD = 5.0
"""Seconds between two looks at the stream, for a worker that has nothing to say."""

_log = logging.getLogger("atto.worker")


class StreamHealth:
    """Kept by whatever publishes events. `name`: how the log calls the stream."""

    def __init__(self, name: str = "the stream of events", *, patience: float = PATIENCE) -> None:
        self._name = name
        self._patience = patience
        self._since: float | None = None
        self._cause = ""
        self._is_told = False
        self.on_healed: Callable[[], None] = lambda: None
        """Called when events are taken again. What was published meanwhile without an answer may be lost."""

    def failed(self, error: BrokerUnavailable | BrokerRefused) -> None:
        """Events were not taken, or the stream is not as it should be."""
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since = now
        self._cause = _explained(error)
        if not self._is_told and now - self._since >= self._patience:
            self._is_told = True
            _log.warning("%s does not take what runs say: %s; they wait for it", self._name, self._cause)

    def took(self) -> None:
        """Events were taken."""
        if self._since is None:
            return
        if self._is_told:
            _log.warning("%s takes what runs say again", self._name)
        self._since, self._is_told = None, False
        self.on_healed()

    def unready(self) -> str | None:
        """Why no run can end now; None if none is known to wait."""
        if self._since is None:
            return None
        if asyncio.get_running_loop().time() - self._since < self._patience:
            return None
        return f"{self._name} does not take what runs say: {self._cause}"

    async def watch(self, look: Callable[[], Awaitable[None]], *, period: float = PERIOD) -> None:
        """Looks again and again, until cancelled. `look` raises what is wrong.

        A good look proves nothing to those who wait: a stream may be there, and take nothing.
        """
        is_looked_for = False
        while True:
            try:
                await look()
            except (BrokerUnavailable, BrokerRefused) as error:
                is_looked_for = True
                self.failed(error)
            else:
                if is_looked_for:
                    is_looked_for = False
                    self.took()
            await asyncio.sleep(period if self._since is None else min(period, self._patience / 2))


def _explained(error: BrokerUnavailable | BrokerRefused) -> str:
    if isinstance(error, NoResponders):
        return f"{error}: the stream was deleted, or its subjects were taken away"
    return str(error)
