"""The client of atto: submit turns to durable agent sessions, and stream what comes of them.

async with Client("nats://127.0.0.1:4222") as client:
    async for event in client.run("user-123", "hi"):
        ...
"""

from atto.protocol import errors, events
from atto.protocol.errors import (
    AcceptanceUnknown,
    AttoError,
    BrokerUnavailable,
    EventsMissing,
    InvalidRunId,
    InvalidSessionId,
    InvalidTurn,
    NoWorkers,
    Overloaded,
    RunCancelled,
    RunFailed,
    SessionBacklogFull,
    TopologyMissing,
    TurnTooLarge,
)
from atto_client.client import Client
from atto_client.run import AttachedRun, Run

__all__ = [
    "AcceptanceUnknown",
    "AttachedRun",
    "AttoError",
    "BrokerUnavailable",
    "Client",
    "EventsMissing",
    "InvalidRunId",
    "InvalidSessionId",
    "InvalidTurn",
    "NoWorkers",
    "Overloaded",
    "Run",
    "RunCancelled",
    "RunFailed",
    "SessionBacklogFull",
    "TopologyMissing",
    "TurnTooLarge",
    "errors",
    "events",
]
