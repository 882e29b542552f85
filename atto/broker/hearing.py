"""Subscriptions whose messages are handled as they are parsed."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from nats.aio.client import Client as Connection
from nats.aio.msg import Msg

_log = logging.getLogger("atto.broker")


class _Ear:
    """Stands where nats-py has the future of a request: it is handed every message, there and then.

    A subscription with a callback has a task and a queue of its own instead, which cost a caller a tenth of
    its CPU (measured, nats-py 2.16), for each run that is listened to is a subscription.
    """

    __slots__ = ("_hear",)

    def __init__(self, hear: Callable[[Msg], None]) -> None:
        self._hear = hear

    def cancelled(self) -> bool:
        return False

    def set_result(self, message: Msg) -> None:
        try:
            self._hear(message)
        except Exception:  # noqa: BLE001 - whatever it is, the next message is another matter
            # Raised into nats-py's reader, it would end the connection.
            _log.exception("a message on %s could not be handled", message.subject)


async def subscribe(connection: Connection, subject: str, hear: Callable[[Msg], None]) -> Any:
    """The subscription, to be ended by its `unsubscribe`. `hear` gets each message, in order, and must not
    take long. Raises what nats-py's own `subscribe` does.
    """
    ear = cast("asyncio.Future[Msg]", _Ear(hear))
    return await connection.subscribe(subject, future=ear)
