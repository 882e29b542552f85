"""Workers of atto: processes that own partitions of sessions and run their turns.

`Runtime` is the front door (broker, worker and client in one process); `Worker` is one process of a pool.
"""

from atto.broker.server import EmbeddedBroker
from atto_workers.dead_letters import DeadLetter, DeadLetters
from atto_workers.gateway import (
    BreakerPolicy,
    LimitPolicy,
    ModelPolicy,
    ModelUsage,
    RetryPolicy,
    TimeoutPolicy,
)
from atto_workers.runtime import Runtime
from atto_workers.topology import Topology
from atto_workers.worker import Worker

__all__ = [
    "BreakerPolicy",
    "DeadLetter",
    "DeadLetters",
    "EmbeddedBroker",
    "LimitPolicy",
    "ModelPolicy",
    "ModelUsage",
    "RetryPolicy",
    "Runtime",
    "TimeoutPolicy",
    "Topology",
    "Worker",
]
