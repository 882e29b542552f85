"""What stands between the runs of a worker and all models."""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from atto.aio.user_code import describe
from atto.models import Model, ModelRequest
from atto.models.assemble import Assembled
from atto.protocol.errors import ModelError
from atto.protocol.messages import Origin
from atto_workers.gateway.policy import ModelPolicies, ModelPolicy, policy_of
from atto_workers.gateway.retries import Jitter
from atto_workers.gateway.stream import OnChunk
from atto_workers.gateway.upstream import OnRestart, Upstream
from atto_workers.gateway.usage import ModelUsage
from atto_workers.turn_context import user_code

_log = logging.getLogger("atto.worker")

_ASKED = 256  # models whose origins are remembered

_ANOTHER_MAY = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.PAYMENT_REQUIRED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.NOT_FOUND,  # the model, not the request
        HTTPStatus.TOO_MANY_REQUESTS,  # not transient: the quota is used up
    }
)
"""Permanent failures that lie with the account or the model, so that another one may well answer."""


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


class ModelGateway:
    """One for each worker. Models of one origin share their limits, their breaker and their count.

    `policies`: as of `ModelPolicies`. `clock`: the event loop's time, in seconds; `jitter`: as
    `random.uniform`.
    """

    def __init__(
        self,
        policies: ModelPolicies | None = None,
        *,
        clock: Callable[[], float] = _loop_time,
        jitter: Jitter = random.uniform,
    ) -> None:
        if not (policies is None or isinstance(policies, ModelPolicy | Mapping) or callable(policies)):
            raise TypeError(
                f"`models` is a {type(policies).__name__}: give a ModelPolicy, such as "
                "`ModelPolicy(retries=RetryPolicy(tries=2))`, a mapping of patterns to such, or a function"
            )
        self._policies: ModelPolicies = ModelPolicy() if policies is None else policies
        if isinstance(policies, Mapping):
            _check_patterns(cast("Mapping[Any, Any]", policies))
        self._clock = clock
        self._jitter = jitter
        self._upstreams: dict[Origin, Upstream] = {}
        self._asked: dict[int, tuple[Model, Upstream]] = {}  # by the identity of the model, which stays alive

    @property
    def usage(self) -> Mapping[Origin, ModelUsage]:
        """What every model that was asked has come to so far."""
        return {origin: upstream.usage for origin, upstream in self._upstreams.items()}

    async def call(
        self,
        models: Sequence[Model],
        request: ModelRequest,
        *,
        on_chunk: OnChunk,
        on_restart: OnRestart,
    ) -> Assembled:
        """The answer of the first of `models` that has one, or would have one soon.

        Every chunk goes to `on_chunk` as it comes; after `on_restart(error)` the answer begins anew, be it of
        the same model or of the next. Cancelling closes the stream, or leaves the queue, at once.

        Raises `ModelError`: the last model's, if no model could answer, which names the failures of the
        others.
        """
        failures: list[ModelError] = []
        for number, model in enumerate(models, start=1):
            try:
                upstream = self._upstream(model)
                assembled = await upstream.call(
                    model, request, on_chunk, on_restart, has_fallback=number < len(models)
                )
            except ModelError as error:
                failures.append(error)
                if number == len(models) or not may_fall_back(error):
                    if number == 1:
                        raise
                    raise _all(failures) from error
                _log.info("the next model is asked: %s", error)
                on_restart(error)
            else:
                upstream.tally.taken_over += number > 1
                return assembled
        raise ValueError("a call needs at least one model")

    def _upstream(self, model: Model) -> Upstream:
        """A model's origin is asked for once."""
        known = self._asked.get(id(model))
        if known is not None:
            return known[1]
        try:
            with user_code("model", type(model).__name__):
                origin = model.origin
                upstream = self._upstreams.get(origin)
        except Exception as error:
            raise ModelError(f"the origin of {type(model).__name__} raised {describe(error)}") from error
        if upstream is None:
            policy = policy_of(self._policies, origin)
            upstream = Upstream(origin, policy, clock=self._clock, jitter=self._jitter)
            self._upstreams[origin] = upstream
        if len(self._asked) >= _ASKED:  # an agent that makes models as it goes
            self._asked.clear()
        self._asked[id(model)] = model, upstream
        return upstream


def _check_patterns(policies: Mapping[Any, Any]) -> None:
    """Raises `TypeError`, which otherwise the first call would find."""
    for pattern, policy in policies.items():
        if not isinstance(pattern, str) or not isinstance(policy, ModelPolicy):
            raise TypeError(
                f"`models` maps {pattern!r} to an object of type {type(policy).__name__}: "
                "patterns are strings, and each has a ModelPolicy"
            )


def may_fall_back(error: ModelError) -> bool:
    """Whether another model may have the answer: not if the request itself is at fault."""
    return error.transient or error.status in _ANOTHER_MAY


def _all(failures: list[ModelError]) -> ModelError:
    """One error for all models of a call. Where waiting mends one of them, it mends the call."""
    waits = [error.retry_after for error in failures if error.transient and error.retry_after is not None]
    return ModelError(
        "no model could answer: " + "; ".join(map(str, failures)),
        transient=any(error.transient for error in failures),
        status=failures[-1].status,
        retry_after=min(waits, default=None),
    )
