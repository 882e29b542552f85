"""Acknowledgements of turns that have ended: not waited for, and repeated until the broker has read them.

One that is lost would hold its place in the session's backlog until the broker delivered the turn once more,
minutes later.
"""

import asyncio
import contextlib
from functools import partial
from typing import NamedTuple

import nats.errors
from nats.aio.msg import Msg

from atto.broker.jetstream import JetStream
from atto.broker.reading import status
from atto.protocol.errors import BrokerRefused, BrokerUnavailable
from atto_workers.delivery import Claim, Delivery

PERIOD = 1.0
"""Seconds between looks at what is not proven."""
PATIENCE = 2.0
"""Seconds after which replicas that did not answer are told once more."""


class _Sent(NamedTuple):
    claim: Claim
    restored: int
    at: float


class Acknowledgements:
    """Of all turns of a worker.

    A broker by itself has read whatever was sent before a request that it answers over the same connection.
    Replicas (`is_replicated`) may be without the leader who would take an acknowledgement: they answer each.
    """

    def __init__(self, jetstream: JetStream, *, is_replicated: bool) -> None:
        self._jetstream = jetstream
        self._is_replicated = is_replicated
        self._unproven: dict[str, _Sent] = {}

    @property
    def unproven(self) -> int:
        """How many the broker may not have."""
        return len(self._unproven)

    async def send(self, delivery: Delivery) -> None:
        """The turn needs nothing more. No-op where the partition is another worker's."""
        if not delivery.reply or delivery.claim.is_lost:
            return
        now = asyncio.get_running_loop().time()
        sent = self._unproven[delivery.reply] = _Sent(delivery.claim, delivery.claim.restored, now)
        await self._send(delivery.reply, sent)

    async def repeat(self) -> None:
        """The connection was lost, and what was on it: sends once more what is not proven."""
        await self._repeat(age=0.0)

    async def serve(self) -> None:
        """Proves what was sent, and repeats what was not read, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            if not self._unproven:
                continue
            if self._is_replicated:
                await self._repeat(age=PATIENCE)
            else:
                await self._prove()

    async def _send(self, reply: str, sent: _Sent) -> None:
        with contextlib.suppress(nats.errors.Error, BrokerUnavailable, BrokerRefused):
            if self._is_replicated:
                await self._jetstream.post(reply, b"+ACK", partial(self._heard, reply, sent))
            else:
                await self._jetstream.send(reply, b"+ACK")

    def _heard(self, reply: str, sent: _Sent, answer: Msg) -> None:
        if status(answer) is None and self._unproven.get(reply) is sent:
            del self._unproven[reply]

    async def _repeat(self, *, age: float) -> None:
        now = asyncio.get_running_loop().time()
        for reply, sent in list(self._unproven.items()):
            # A consumer that was made again may have given the number to another turn (a broker that lost
            # the end of a stream does); what it delivers once more is answered then.
            if sent.claim.is_lost or sent.claim.restored != sent.restored:
                self._unproven.pop(reply, None)
            elif now - sent.at >= age:
                again = self._unproven[reply] = sent._replace(at=now)
                await self._send(reply, again)

    async def _prove(self) -> None:
        connection = self._jetstream.connection
        epoch, sent = connection.stats["reconnects"], list(self._unproven.items())
        with contextlib.suppress(BrokerUnavailable, BrokerRefused):
            await self._jetstream.api("INFO", timeout=PATIENCE)
            if connection.stats["reconnects"] == epoch:
                for reply, each in sent:
                    if self._unproven.get(reply) is each:
                        del self._unproven[reply]
