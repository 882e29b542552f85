"""The model gateway: between the agent loop and all models, one for each worker.

It decides when a model is asked, how long it may take, whether and when it is asked again, and who is asked
instead; and it counts what that came to.
"""

from atto_workers.gateway.breaker import BreakerPolicy
from atto_workers.gateway.gateway import ModelGateway
from atto_workers.gateway.limits import LimitPolicy
from atto_workers.gateway.policy import ModelPolicies, ModelPolicy
from atto_workers.gateway.retries import RetryPolicy
from atto_workers.gateway.timeouts import TimeoutPolicy
from atto_workers.gateway.usage import ModelUsage

__all__ = [
    "BreakerPolicy",
    "LimitPolicy",
    "ModelGateway",
    "ModelPolicies",
    "ModelPolicy",
    "ModelUsage",
    "RetryPolicy",
    "TimeoutPolicy",
]
