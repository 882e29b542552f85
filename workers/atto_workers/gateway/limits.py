"""How much of a model a worker uses at a time and a minute, and who is next."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from atto_workers.gateway.window import TOLERANCE, Entry, Window


@dataclass(frozen=True, kw_only=True)
class LimitPolicy:
    """Of one model, for one worker: `concurrency` calls at a time, so many `requests_per_minute` and
    `tokens_per_minute` (input and output). None: no bound of ours. Who has to wait does so in turn.

    `adapt`: whether a 429 halves the concurrency, which then grows back by one for every round of answers.
    A `Retry-After` holds up all calls of the model in any case.
    """

    concurrency: int | None = 256
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    adapt: bool = True

    def __post_init__(self) -> None:
        for limit in (self.concurrency, self.requests_per_minute, self.tokens_per_minute):
            if limit is not None and limit < 1:
                raise ValueError(f"limits are at least 1, or None: {self}")


class Paused(Exception):
    """The provider wants to be left alone for `seconds` more, which is longer than the caller would wait."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"paused for {seconds:.1f} s")
        self.seconds = seconds


class Slot:
    """The right to make one call, until `release`."""

    __slots__ = ("generation", "request", "tokens")

    def __init__(self, generation: int, request: Entry | None, tokens: Entry | None) -> None:
        self.generation = generation
        self.request = request
        self.tokens = tokens


class _Waiter:
    __slots__ = ("patience", "slot", "tokens")

    def __init__(self, tokens: int, patience: float, slot: asyncio.Future[Slot | None]) -> None:
        self.tokens = tokens
        self.patience = patience
        self.slot = slot  # None: paused for too long


class Limiter:
    """Hands out the slots of one model, first come, first served. `clock`: the event loop's time."""

    def __init__(self, policy: LimitPolicy, clock: Callable[[], float]) -> None:
        self.active = 0
        self._policy = policy
        self._clock = clock
        self._most = math.inf if policy.concurrency is None else float(policy.concurrency)
        self._concurrency = self._most
        self._generation = 0
        self._paused_until = -math.inf
        self._requests = None if policy.requests_per_minute is None else Window(policy.requests_per_minute)
        self._tokens = None if policy.tokens_per_minute is None else Window(policy.tokens_per_minute)
        self._waiters: deque[_Waiter] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many calls wait for a slot."""
        return len(self._waiters)

    @property
    def concurrency(self) -> int | None:
        """How many calls may be made at a time just now; None: any number."""
        return None if math.isinf(self._concurrency) else int(self._concurrency)

    @property
    def counts_tokens(self) -> bool:
        """Whether `acquire` needs an estimate."""
        return self._tokens is not None

    async def acquire(self, tokens: int = 0, *, patience: float = math.inf) -> Slot:
        """The next slot; `tokens`: what the call may use. A waiter that is cancelled is out at once.

        Raises `Paused` as soon as a `pause` is known that lasts for more than `patience` seconds.
        """
        if not self._waiters and self._wait(tokens) <= 0:
            return self._admit(tokens)
        if self._pause_left() > patience:
            raise Paused(self._pause_left())
        waiter = _Waiter(tokens, patience, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._serve()
        try:
            slot = await waiter.slot
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self._serve()  # it may have stood before one that needs less
            elif not waiter.slot.cancelled() and (slot := waiter.slot.result()) is not None:
                # the slot and the cancellation came at the same time
                self.unused(slot)
                self.release(slot)
            raise
        if slot is None:
            raise Paused(self._pause_left())
        return slot

    def release(self, slot: Slot, *, tokens: int | None = None) -> None:
        """The call is over; `tokens`: what it used, if known."""
        self.active -= 1
        if self._tokens is not None and slot.tokens is not None and tokens is not None:
            self._tokens.correct(slot.tokens, tokens, self._clock())
        self._serve()

    def unused(self, slot: Slot) -> None:
        """The call was not made after all: it does not count against the minute."""
        now = self._clock()
        if self._requests is not None and slot.request is not None:
            self._requests.correct(slot.request, 0, now)
        if self._tokens is not None and slot.tokens is not None:
            self._tokens.correct(slot.tokens, 0, now)

    def answered(self) -> None:
        """A call succeeded: one more for every round of answers."""
        if self._concurrency < self._most:
            self._concurrency = min(self._concurrency + 1 / self._concurrency, self._most)

    def throttled(self, slot: Slot) -> None:
        """The provider says that it is asked too often: half as many calls at a time.

        Those that were let in before the last such cut tell nothing about the present number.
        """
        if self._policy.adapt and slot.generation == self._generation:
            self._generation += 1
            self._concurrency = max(1.0, min(self._concurrency, float(self.active)) / 2)

    def pause(self, seconds: float) -> None:
        """No call is let in for so long. Waiters who would rather ask another model are sent away."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        left = self._pause_left()
        impatient = [waiter for waiter in self._waiters if waiter.patience < left]
        for waiter in impatient:
            self._waiters.remove(waiter)
            if not waiter.slot.done():
                waiter.slot.set_result(None)

    def _pause_left(self) -> float:
        return self._paused_until - self._clock()

    def _admit(self, tokens: int) -> Slot:
        self.active += 1
        if self._requests is None and self._tokens is None:
            return Slot(self._generation, None, None)
        now = self._clock()
        return Slot(
            self._generation,
            None if self._requests is None else self._requests.use(now, 1),
            None if self._tokens is None else self._tokens.use(now, tokens),
        )

    def _wait(self, tokens: int) -> float:
        """Seconds until a call may begin, as far as time is in the way; infinite: until another ends."""
        if self.active + 1 > self._concurrency:
            return math.inf
        if self._requests is None and self._tokens is None and self._paused_until == -math.inf:
            return 0.0
        now = self._clock()
        wait = self._paused_until - now
        if self._requests is not None:
            wait = max(wait, self._requests.wait(now, 1))
        if self._tokens is not None:
            wait = max(wait, self._tokens.wait(now, tokens))
        return wait if wait > TOLERANCE else 0.0

    def _serve(self) -> None:
        """Lets in who can be, in order, and sets the timer for who comes next."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            waiter = self._waiters[0]
            if not waiter.slot.done():
                wait = self._wait(waiter.tokens)
                if wait > 0:
                    if math.isfinite(wait):
                        self._timer = asyncio.get_running_loop().call_later(wait, self._serve)
                    return
                waiter.slot.set_result(self._admit(waiter.tokens))
            self._waiters.popleft()
