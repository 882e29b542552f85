"""How the gateway treats a model: all of its settings, and which of them are whose."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TypeAlias

from atto.protocol.messages import Origin
from atto_workers.gateway.breaker import BreakerPolicy
from atto_workers.gateway.limits import LimitPolicy
from atto_workers.gateway.retries import RetryPolicy
from atto_workers.gateway.timeouts import TimeoutPolicy


@dataclass(frozen=True, kw_only=True)
class ModelPolicy:
    """What applies to each model by itself. `breaker`: None leaves a model that fails to its retries."""

    retries: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: TimeoutPolicy = field(default_factory=TimeoutPolicy)
    limits: LimitPolicy = field(default_factory=LimitPolicy)
    breaker: BreakerPolicy | None = field(default_factory=BreakerPolicy)


ModelPolicies: TypeAlias = ModelPolicy | Mapping[str, ModelPolicy] | Callable[[Origin], ModelPolicy]
"""One policy for all models; or by pattern (`openai*:gpt-5*`, case-sensitive, as of `fnmatch`), of which the
first counts that fits the model's `provider:model`, and the default policy where none does; or a function.
"""


def policy_of(policies: ModelPolicies, origin: Origin) -> ModelPolicy:
    """The policy for the model of this origin."""
    if isinstance(policies, ModelPolicy):
        return policies
    if callable(policies):
        return policies(origin)
    name = f"{origin.provider}:{origin.model}"
    for pattern, policy in policies.items():
        if fnmatchcase(name, pattern):
            return policy
    return ModelPolicy()
