"""Between the agent loop and the model: which failures of a provider are worth another try, and when."""

import random
from typing import NamedTuple

from atto.protocol.errors import ModelError


class RetryPolicy(NamedTuple):
    """Transient errors are tried again, `tries` times in all, after an exponential back-off with full jitter.

    The pauses are in seconds, `base` doubling up to `cap`; a provider's `Retry-After` is obeyed instead, up
    to `patience`, beyond which the error stands.
    """

    tries: int = 4
    base: float = 0.5
    cap: float = 20.0
    patience: float = 60.0

    def pause(self, error: ModelError, failures: int) -> float | None:
        """Seconds to wait after the `failures`-th failure in a row; None: give up."""
        if not error.transient or failures >= self.tries:
            return None
        if error.retry_after is not None:
            return error.retry_after if error.retry_after <= self.patience else None
        return random.uniform(0, min(self.cap, self.base * 2 ** (failures - 1)))  # noqa: S311 - jitter
