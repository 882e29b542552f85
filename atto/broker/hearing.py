"""Subscriptions whose messages are handled as they are parsed."""

from collections.abc import Callable
from typing import Any

from nats.aio.client import Client as Connection
from nats.aio.msg import Msg

from atto.broker.reading import subscribe_sink


async def subscribe(connection: Connection, subject: str, hear: Callable[[Msg], None]) -> Any:
    """The subscription, to be ended by its `unsubscribe`. `hear` gets each message, in order, and must not
    take long; what it raises is logged. Raises what nats-py's own `subscribe` does.
    """
    return await subscribe_sink(connection, subject, hear)
