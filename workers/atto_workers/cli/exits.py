"""Exit codes, as docs/cli.md lists them."""

from typing import cast

from atto.protocol.errors import (
    BrokerFailed,
    BrokerNotFound,
    BrokerRefused,
    BrokerUnavailable,
    ConnectionClosed,
    NoWorkers,
    PostgresRefused,
    StoreError,
    StoreMismatch,
    TopologyMismatch,
    TopologyMissing,
    UnknownStore,
)

FAILED = 1
USAGE = 2
BROKER = 3
NAMESPACE = 4
STORE = 5
CLOSED = 6
INTERRUPTED = 130


class Unusable(ValueError):
    """An argument that cannot be used, as found out when it was: an agent that cannot be loaded."""


def exit_code(error: BaseException) -> int:
    """The code for an error that ended a command."""
    match error:
        case Unusable() | UnknownStore():
            return USAGE
        case ConnectionClosed():
            return CLOSED
        case BrokerUnavailable() | BrokerRefused() | BrokerNotFound() | BrokerFailed():
            return BROKER
        case NoWorkers() | TopologyMissing() | TopologyMismatch():
            return NAMESPACE
        case StoreError() | StoreMismatch() | PostgresRefused():
            return STORE
        case _:
            return FAILED


def cause(error: BaseException) -> BaseException:
    """What to tell of an error: of a group, the first that has a code of its own, else the first."""
    leaves = _leaves(error)
    return next((leaf for leaf in leaves if exit_code(leaf) != FAILED), leaves[0])


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast("BaseExceptionGroup[BaseException]", error)
    return [leaf for member in group.exceptions for leaf in _leaves(member)]
