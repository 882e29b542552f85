"""Patience with a broker that is there, and not ready yet: a cluster that elects leaders, or is busy."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from atto.protocol.errors import BrokerRefused, BrokerUnavailable
from atto_workers.backoff import Backoff
from atto_workers.topology import BrokerUnfit

START_PATIENCE = 30.0
"""Seconds that a broker has for each step of a worker's start."""
_UNAVAILABLE = 503

_log = logging.getLogger("atto.worker")

T = TypeVar("T")


async def patiently(
    ask: Callable[[], Awaitable[T]],
    what: str,
    *,
    patience: float = START_PATIENCE,
    backoff: Backoff | None = None,
) -> T:
    """The outcome of `ask`, which is asked again while the broker does not answer, or says that it cannot
    now. The log says `what` is waited for, once.

    Raises what `ask` raised last, `patience` seconds after the first time; what will not pass, at once.
    """
    deadline = time.monotonic() + patience
    pauses, is_said = backoff or Backoff(), False
    while True:
        try:
            return await ask()
        except BrokerUnfit:
            raise
        except (BrokerUnavailable, BrokerRefused) as error:
            may_pass = isinstance(error, BrokerUnavailable) or error.status == _UNAVAILABLE
            if not may_pass or time.monotonic() >= deadline:
                raise
            if not is_said:
                _log.warning("waiting up to %.0f s for the broker: %s (%s)", patience, what, error)
                is_said = True
        await pauses.pause()
