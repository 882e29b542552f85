"""A model that keeps failing is left alone for a while, so that nobody waits for what will not come."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from atto.models import Chunk
from atto.protocol.errors import ModelError

_log = logging.getLogger("atto.worker")

_PROBE_PATIENCE = 1.0
"""Seconds after which to come back, for who meets a breaker whose probe is under way."""


@dataclass(frozen=True, kw_only=True)
class BreakerPolicy:
    """After `failures` tries in a row that failed with transient errors, nobody asks the model for
    `cool_down` seconds, or as long as its `Retry-After` says, up to `longest`. Then one call probes it: once
    its answer begins all are let through again, if it fails before that none for another while.

    A 429 does not count, since `LimitPolicy` copes with it, unless its `Retry-After` is longer than the
    `patience` of the model's `RetryPolicy`: then the model is left alone at once.
    """

    failures: int = 10
    cool_down: float = 15.0
    longest: float = 300.0

    def __post_init__(self) -> None:
        if self.failures < 1 or not 0 < self.cool_down <= self.longest:
            raise ValueError(f"at least 1 failure, and 0 < cool_down <= longest, in seconds: {self}")


class Breaker:
    """Of one model. Closed, it counts failures in a row; open, it refuses; half open, it has let one call in.

    `policy`: None is a breaker that is always closed. A call that was let in before the breaker last changed
    tells nothing about the model as it is now: its outcome is told apart by the ticket that `enter` gave.
    """

    def __init__(
        self, policy: BreakerPolicy | None, model: str, *, patience: float, clock: Callable[[], float]
    ) -> None:
        self._policy = policy
        self._model = model
        self._patience = patience
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._is_probing = False
        self._ticket: int = 0
        self._last: ModelError | None = None

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, all or all but one."""
        return self._open_until is not None

    def check(self) -> None:
        """Raises a transient `ModelError` with its `retry_after` if a call would be refused now."""
        if self._open_until is None:
            return
        left = self._open_until - self._clock()
        if left <= 0 and self._is_probing:
            left = _PROBE_PATIENCE
        if left > 0:
            raise ModelError(
                f"{self._model}: not asked for another {left:.1f} s, since it kept failing: {self._last}",
                transient=True,
                status=None if self._last is None else self._last.status,
                retry_after=left,
            )

    def enter(self) -> int:
        """Lets a call in and gives its ticket, for one of the methods below; or raises as `check`."""
        self.check()
        if self._open_until is not None:
            self._is_probing = True
            self._ticket += 1
        return self._ticket

    def watched(self, ticket: int, on_chunk: Callable[[Chunk], None]) -> Callable[[Chunk], None]:
        """`on_chunk` for the call of this ticket. Of a probe the first chunk is enough: all are let in again,
        though the rest of its answer may take minutes. From then on it counts as any other call.
        """
        if not self._is_probing or ticket != self._ticket:
            return on_chunk

        def heard(chunk: Chunk) -> None:
            self._close(ticket)
            on_chunk(chunk)

        return heard

    def answered(self, ticket: int) -> None:
        """The provider is there: it answered, or refused for a reason that lies with the request."""
        if ticket == self._ticket:
            self._close(ticket)
            self._failures = 0

    def failed(self, ticket: int, error: ModelError) -> None:
        """The call failed with a transient error."""
        if self._policy is None or ticket != self._ticket:
            return
        asked = error.retry_after or 0.0
        if error.status == HTTPStatus.TOO_MANY_REQUESTS and asked <= self._patience:
            self.left(ticket)
            return
        self._failures += 1
        if self._is_probing or asked > self._patience or self._failures >= self._policy.failures:
            self._open(min(max(self._policy.cool_down, asked), self._policy.longest), error)

    def left(self, ticket: int) -> None:
        """The call ended without telling anything about the model. If it was the probe, the next one is."""
        if ticket == self._ticket:
            self._is_probing = False

    def _close(self, ticket: int) -> None:
        """No-op unless this is the probe. Its ticket stays valid: how it ends tells of the model as it is."""
        if self._is_probing and ticket == self._ticket:
            self._is_probing = False
            self._open_until = None
            _log.info("%s answers again", self._model)

    def _open(self, seconds: float, error: ModelError) -> None:
        self._open_until = self._clock() + seconds
        self._is_probing = False
        self._failures = 0
        self._ticket += 1
        self._last = error
        _log.warning("%s keeps failing and is not asked for %.0f s: %s", self._model, seconds, error)
