"""What is done between processes, to clients, and by producers whose bytes nobody should read."""

import asyncio
import contextlib
import signal

from tests.chaos.hostile import Hostile
from tests.chaos.records import Fault, now
from tests.chaos.victims import ARMED, Action, Victims, fault_on, held

ACKNOWLEDGEMENT = b"+ACK"
DEAF = (1.0, 9.0)
"""Seconds for which a worker hears nothing, and is heard."""


class ConnectionFaults:
    def __init__(self, victims: Victims) -> None:
        self._victims = victims
        self._chance = victims.chance
        plan = victims.fleet.plan
        self._commit = b"$KV.%s-sessions." % plan.namespace.encode()
        self._hostile = Hostile(plan.namespace, self._chance)

    def actions(self) -> dict[str, Action]:
        return {
            "cut": self._cut,
            "cut_at_ack": self._cut_at("cut_at_ack", ACKNOWLEDGEMENT),
            "cut_at_commit": self._cut_at("cut_at_commit", self._commit),
            "stall": self._stall,
            "deafen": self._deafen,
            "client_kill": self._kill_client,
            "hostile_bytes": self._send_hostile_bytes,
        }

    async def _cut(self) -> Fault | None:
        child = self._victims.proxied()
        if child is None:
            return None
        at = now()
        child.proxy.cut()
        return fault_on("cut", at, child)

    def _cut_at(self, name: str, marker: bytes) -> Action:
        """The connection goes with these bytes on it, or after them, with the answer."""

        async def cut() -> Fault | None:
            worker = self._victims.proxied(only_workers=True)
            if worker is None:
                return None
            with held(worker):
                try:
                    async with asyncio.timeout(ARMED):
                        await worker.proxy.cut_at(marker, before=self._chance.random() < 0.5)
                except TimeoutError:
                    return None
            return fault_on(name, now(), worker, is_certain=True)

        return cut

    async def _stall(self) -> Fault | None:
        child = self._victims.proxied()
        if child is None:
            return None
        with held(child):
            at = now()
            child.proxy.stall()
            await asyncio.sleep(self._chance.uniform(0.5, 5))
            until = now()
            child.proxy.flow()
        return fault_on("stall", at, child, until=until)

    async def _deafen(self) -> Fault | None:
        worker = self._victims.proxied(only_workers=True)
        if worker is None:
            return None
        with held(worker):
            at = now()
            worker.proxy.deafen()
            await asyncio.sleep(self._chance.uniform(*DEAF))
            until = now()
            worker.proxy.flow()
        return fault_on("deafen", at, worker, until=until)

    async def _kill_client(self) -> Fault | None:
        client = self._victims.client()
        if client is None:
            return None
        fleet = self._victims.fleet
        with held(client):
            at = now()
            client.signal(signal.SIGKILL)
            await fleet.gone(client, expected={-signal.SIGKILL})
            await asyncio.sleep(self._chance.uniform(0, 0.5))
            await fleet.start_client(fleet.index_of(client))
        return fault_on("client_kill", at, client)

    async def _send_hostile_bytes(self) -> Fault | None:
        at = now()
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            await self._hostile.send(self._victims.fleet.address())
            return Fault(t=at, name="hostile_bytes", until=now(), target="all", is_certain=True)
        return None  # the broker is away at the moment
