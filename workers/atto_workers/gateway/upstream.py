"""One model, as all runs of a worker share it: its limits, its breaker, its retries, and its count."""

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus

from atto.broker.alarms import Alarms
from atto.models import Model, ModelRequest
from atto.models.assemble import Assembled
from atto.protocol.errors import ModelError
from atto.protocol.messages import Origin
from atto_workers.gateway.breaker import Breaker
from atto_workers.gateway.limits import Limiter, Paused, Slot
from atto_workers.gateway.policy import ModelPolicy
from atto_workers.gateway.retries import Jitter, RetryBudget
from atto_workers.gateway.stream import ModelStream, OnChunk
from atto_workers.gateway.tokens import estimate
from atto_workers.gateway.usage import ModelUsage, Tally

OnRestart = Callable[[ModelError], None]

_log = logging.getLogger("atto.worker")


class Upstream:
    """Of the model of one origin. `clock`: the event loop's time."""

    def __init__(
        self, origin: Origin, policy: ModelPolicy, *, clock: Callable[[], float], jitter: Jitter
    ) -> None:
        self.tally = Tally()
        self._name = f"{origin.provider}/{origin.model}"
        self._policy = policy
        self._jitter = jitter
        self._alarms = Alarms()
        self._limiter = Limiter(policy.limits, clock)
        self._budget = RetryBudget(policy.retries, clock)
        self._breaker = Breaker(policy.breaker, self._name, patience=policy.retries.patience, clock=clock)

    @property
    def usage(self) -> ModelUsage:
        """The counts so far."""
        return self.tally.frozen(
            active=self._limiter.active,
            waiting=self._limiter.waiting,
            concurrency=self._limiter.concurrency,
            is_open=self._breaker.is_open,
        )

    async def call(
        self,
        model: Model,
        request: ModelRequest,
        on_chunk: OnChunk,
        on_restart: OnRestart,
        *,
        has_fallback: bool,
    ) -> Assembled:
        """One call with its retries. Raises `ModelError` once no further try is worth it."""
        self.tally.calls += 1
        self._budget.called()
        failures = 0
        while True:
            stream = ModelStream(
                model, request, name=self._name, timeouts=self._policy.timeouts, alarms=self._alarms
            )
            try:
                assembled = await self._try(
                    stream, request, on_chunk, is_retry=failures > 0, has_fallback=has_fallback
                )
            except ModelError as error:
                failures += 1
                pause = self._pause(error, failures, has_fallback)
                if pause is None:
                    raise
                _log.info("%s is asked again in %.1f s: %s", self._name, pause, error)
                on_restart(error)
            else:
                self.tally.answered += 1
                return assembled
            await asyncio.sleep(pause)

    def _pause(self, error: ModelError, failures: int, has_fallback: bool) -> float | None:
        """Seconds until the next try; None: give up, as everybody does while the breaker is open."""
        if self._breaker.is_open:
            return None
        pause = self._policy.retries.pause(error, failures, self._jitter, has_fallback=has_fallback)
        if pause is not None and not self._budget.spend(error):
            _log.info("%s is not asked again, since its retry budget is spent: %s", self._name, error)
            return None
        return pause

    async def _try(
        self,
        stream: ModelStream,
        request: ModelRequest,
        on_chunk: OnChunk,
        *,
        is_retry: bool,
        has_fallback: bool,
    ) -> Assembled:
        """One try: waits for its turn, asks, and tells the limits and the breaker how it went."""
        self._refuse_if_open()
        slot = await self._admitted(request, has_fallback)
        try:
            self._refuse_if_open(slot)  # it may have opened during the wait
            self.tally.tries += 1
            self.tally.retries += is_retry
            ticket = self._breaker.enter()
            try:
                assembled = await stream.read(self._breaker.watched(ticket, on_chunk))
            except ModelError as error:
                self.tally.failed += 1
                self._learn(error, slot, ticket)
                raise
            except BaseException:
                self._breaker.left(ticket)
                raise
            self._breaker.answered(ticket)
            self._limiter.answered()
        finally:
            usage = stream.usage
            self._limiter.release(
                slot, tokens=None if usage is None else usage.input_tokens + usage.output_tokens
            )
            if usage is not None:
                self.tally.tokens += usage
        return assembled

    async def _admitted(self, request: ModelRequest, has_fallback: bool) -> Slot:
        """The right to ask. Only who has nobody else to ask waits out a long `Retry-After`."""
        tokens = estimate(request) if self._limiter.counts_tokens else 0
        if not has_fallback:
            return await self._limiter.acquire(tokens)
        try:
            return await self._limiter.acquire(tokens, patience=self._policy.retries.fallback_patience)
        except Paused as pause:
            self.tally.refused += 1
            raise ModelError(
                f"{self._name}: not asked for another {pause.seconds:.1f} s, as it has asked for",
                transient=True,
                status=HTTPStatus.TOO_MANY_REQUESTS,
                retry_after=pause.seconds,
            ) from None

    def _refuse_if_open(self, slot: Slot | None = None) -> None:
        try:
            self._breaker.check()
        except ModelError:
            self.tally.refused += 1
            if slot is not None:
                self._limiter.unused(slot)
            raise

    def _learn(self, error: ModelError, slot: Slot, ticket: int) -> None:
        """What a failure tells about the calls to come."""
        if error.status == HTTPStatus.TOO_MANY_REQUESTS:
            self.tally.throttled += 1
        if error.transient:
            self._breaker.failed(ticket, error)
            if error.status == HTTPStatus.TOO_MANY_REQUESTS:
                self._limiter.throttled(slot)
            if error.retry_after is not None and error.retry_after <= self._policy.retries.patience:
                self._limiter.pause(error.retry_after)
        elif error.status is not None:
            self._breaker.answered(ticket)
        else:
            self._breaker.left(ticket)
