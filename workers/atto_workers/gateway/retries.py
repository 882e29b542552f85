"""Which failures of a model are worth another try, when, and how many a worker may make in all."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from atto.protocol.errors import ModelError

Jitter = Callable[[float, float], float]
"""Picks a number between two others: `random.uniform`."""


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Transient errors are tried again, `tries` times in all, after an exponential back-off with full jitter.

    The pauses are in seconds, between 0 and `base`, which doubles up to `cap`. A provider's `Retry-After` is
    obeyed instead, up to `patience`, beyond which the error stands; where a fallback could be asked instead,
    up to `fallback_patience`.

    `budget`: retries of a model, by all runs of the worker together, as a share of its calls; `reserve`: as
    many more a minute, so that a quiet worker may retry at all. So an outage is not multiplied. None: no
    bound. A 429 spends nothing of it: how often such calls are made is the business of `LimitPolicy`.
    """

    tries: int = 4
    base: float = 0.5
    cap: float = 20.0
    patience: float = 60.0
    fallback_patience: float = 2.0
    budget: float | None = 0.2
    reserve: int = 20

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"tries is {self.tries}: give at least 1, which is no retry")
        pauses = self.base, self.cap, self.patience, self.fallback_patience
        if min(*pauses, self.reserve, self.budget or 0) < 0:
            raise ValueError(f"no negative pauses, shares or numbers: {self}")

    def longest(self, *, has_fallback: bool) -> float:
        """The longest `Retry-After` that is waited for."""
        return min(self.patience, self.fallback_patience) if has_fallback else self.patience

    def pause(
        self,
        error: ModelError,
        failures: int,
        jitter: Jitter = random.uniform,
        *,
        has_fallback: bool = False,
    ) -> float | None:
        """Seconds to wait after the `failures`-th failure in a row; None: give up."""
        if not error.transient or failures >= self.tries:
            return None
        if error.retry_after is not None:
            if error.retry_after > self.longest(has_fallback=has_fallback):
                return None
            # not all of those that were told the same time at the same instant
            return error.retry_after + jitter(0, self.base)
        # the exponent is bounded, since 2.0 ** 1024 is an error
        return jitter(0, min(self.cap, self.base * 2.0 ** min(failures - 1, 64)))


class RetryBudget:
    """The retries that a model has left: a bucket that calls and time fill, and retries empty."""

    def __init__(self, policy: RetryPolicy, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._clock = clock
        self._left = float(policy.reserve)
        self._filled = clock()
        self._calls = 0

    def called(self) -> None:
        """A call is made that is no retry."""
        self._calls += 1

    def spend(self, error: ModelError) -> bool:
        """Whether a retry after `error` may be made; if so, it is counted."""
        if self._policy.budget is None or error.status == HTTPStatus.TOO_MANY_REQUESTS:
            return True
        self._fill(self._policy.budget)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _fill(self, share: float) -> None:
        """What calls, by their `share`, and time have brought since the last retry."""
        now = self._clock()
        earned = share * self._calls + (now - self._filled) * self._policy.reserve / 60
        self._left = min(self._left + earned, float(max(self._policy.reserve, 1)))
        self._filled = now
        self._calls = 0
