"""How long a model may be silent: our own clock on its chunks, since pings reset those of the SDKs."""

import asyncio
import math
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from atto.broker.alarms import Alarms
from atto.protocol.errors import ModelError
from atto_workers.interruption import Interruption


@dataclass(frozen=True, kw_only=True)
class TimeoutPolicy:
    """Seconds of one try, from its request on: until the first chunk, between two chunks (`stall`), and in
    all. None: no bound. How long connecting may take is a setting of the model itself.
    """

    first_chunk: float | None = 300.0
    stall: float | None = 120.0
    total: float | None = 1800.0

    def __post_init__(self) -> None:
        for seconds in (self.first_chunk, self.stall, self.total):
            if seconds is not None and seconds <= 0:
                raise ValueError(f"time-outs are more than 0 seconds, or None: {self}")


class StreamTimer:
    """`with StreamTimer(policy, model, alarms) as timer` around one stream; `timer.heard()` for every chunk.

    Raises a transient `ModelError` that names `model`, once the body, which is cancelled there and then, has
    ended. A chunk only notes the time.
    """

    def __init__(self, policy: TimeoutPolicy, model: str, alarms: Alarms) -> None:
        self.due = math.inf
        self._policy = policy
        self._model = model
        self._alarms = alarms
        self._now = asyncio.get_running_loop().time
        self._body = Interruption()
        self._silence = _seconds(policy.first_chunk)
        self._ends = math.inf
        self._has_spoken = False

    def heard(self) -> None:
        """A chunk came."""
        due = self._now() + self._silence
        if self._has_spoken:
            self.due = min(due, self._ends)
            return
        self._has_spoken = True
        self._silence = _seconds(self._policy.stall)
        self._set()

    def ring(self) -> None:
        """The stream took too long."""
        self._body.interrupt()

    def __enter__(self) -> Self:
        self._ends = self._now() + _seconds(self._policy.total)
        self._body.__enter__()
        self._set()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarms.clear(self)
        if self._body.__exit__(kind, error, trace):
            raise ModelError(f"{self._model}: {self._expired()}", transient=True) from None

    def _set(self) -> None:
        self.due = min(self._now() + self._silence, self._ends)
        if self.due < math.inf:
            self._alarms.set(self)

    def _expired(self) -> str:
        """What took too long."""
        policy = self._policy
        if self.due == self._ends:
            return f"the answer took more than {policy.total:g} s"
        if self._has_spoken:
            return f"no further chunk came within {policy.stall:g} s"
        return f"no first chunk came within {policy.first_chunk:g} s"


def _seconds(bound: float | None) -> float:
    return math.inf if bound is None else bound
