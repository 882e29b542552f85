"""Exit codes, as docs/cli.md lists them."""

from atto.protocol.errors import (
    BrokerRefused,
    BrokerUnavailable,
    NoWorkers,
    StoreError,
    TopologyMismatch,
    TopologyMissing,
)

FAILED = 1
USAGE = 2
BROKER = 3
NAMESPACE = 4
STORE = 5
INTERRUPTED = 130


def exit_code(error: Exception) -> int:
    """The code for an error that ended a command."""
    if isinstance(error, (BrokerUnavailable, BrokerRefused)):
        return BROKER
    if isinstance(error, (NoWorkers, TopologyMissing, TopologyMismatch)):
        return NAMESPACE
    return STORE if isinstance(error, StoreError) else FAILED
