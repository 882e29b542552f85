"""JetStream's error replies, and the errors that they come to."""

import msgspec

from atto.protocol.errors import BrokerRefused, BrokerUnavailable

# JetStream's error codes (server/errors.json of nats-server).
WRONG_LAST_SEQUENCE = 10071
WRONG_LAST_SEQUENCE_CONSTANT = 10164
"""Of replicas: an append that expects something of the same subject is under way."""
SUBJECT_FULL = STREAM_FULL = 10077
FILTER_NOT_UNIQUE = 10100
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
NO_MESSAGE = 10037
ALREADY_DELETED = frozenset({NO_MESSAGE, 10043, 10057})
"""Answers to a deletion: no such message, no such sequence, and that it was not there."""
MESSAGE_TOO_LARGE = 10054
ACCOUNT_LIMIT = 10002
NO_PEERS = 10005
"""Of a cluster: no node has the room, or there are fewer nodes than copies."""
TOO_MANY_STREAMS = 10027
INSUFFICIENT_STORAGE = 10047
BOUND_REQUIRED = 10113
BOUND_ABOVE_LIMIT = 10122
# A cluster without a quorum or a leader, or with one that is about to take a message of the same id.
_NOT_NOW = frozenset({10008, 10009, 10118, 10119, 10158})


class ApiError(msgspec.Struct):
    """As it stands in replies."""

    code: int = 0
    err_code: int = 0
    description: str = ""


def refused(what: str, error: ApiError) -> BrokerRefused | BrokerUnavailable:
    """What to raise where `what` was refused; `BrokerUnavailable` if it may well be taken later."""
    if error.err_code in _NOT_NOW:
        return BrokerUnavailable(f"{what}: {error.description} (error {error.err_code})")
    return BrokerRefused(
        f"{what}: {error.description} (error {error.err_code})",
        status=error.code,
        err_code=error.err_code,
        description=error.description,
    )
