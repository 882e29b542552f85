"""How long a model may be silent: our own timer on its chunks, since pings reset those of the SDKs."""

import asyncio
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from atto.protocol.errors import ModelError

_EARLY = 1e-3
"""Seconds by which an event loop's timer may go off too early."""


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
    """`async with StreamTimer(policy, model)` around one stream; `heard()` for every chunk of it.

    Raises a transient `ModelError` that names `model`, once the body, which is cancelled there and then, has
    ended. One timer of the event loop serves the whole stream: a chunk only notes the time, and the timer is
    set anew when it goes off.
    """

    def __init__(self, policy: TimeoutPolicy, model: str) -> None:
        self._policy = policy
        self._model = model
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._body = asyncio.timeout(None)
        self._handle: asyncio.TimerHandle | None = None
        self._began = self._last = 0.0
        self._has_spoken = False
        self._expired = ""

    def heard(self) -> None:
        """A chunk came."""
        self._last = self._now()
        if not self._has_spoken:
            self._has_spoken = True
            self._arm()

    async def __aenter__(self) -> Self:
        self._began = self._last = self._now()
        await self._body.__aenter__()
        self._arm()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        try:
            await self._body.__aexit__(kind, error, trace)
        except TimeoutError:
            raise ModelError(f"{self._model}: {self._expired}", transient=True) from None

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        due, _ = self._due()
        self._handle = None if due is None else self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        due, what = self._due()
        if due is None or due > self._now() + _EARLY:
            self._arm()
            return
        self._handle = None
        self._expired = what
        self._body.reschedule(self._now())

    def _due(self) -> tuple[float | None, str]:
        """When the body has to end, as things stand, and the words for that."""
        policy = self._policy
        if self._has_spoken:
            silence, what = policy.stall, "no further chunk came"
        else:
            silence, what = policy.first_chunk, "no first chunk came"
        total = None if policy.total is None else self._began + policy.total
        quiet = None if silence is None else self._last + silence
        if quiet is not None and (total is None or quiet <= total):
            return quiet, f"{what} within {silence:g} s"
        return total, "" if total is None else f"the answer took more than {policy.total:g} s"
