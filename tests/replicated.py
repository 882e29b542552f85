"""A cluster of three real brokers with replicated streams, whose nodes can be killed and paused."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncGenerator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from atto.broker.connection import connected
from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.protocol.errors import BrokerRefused, BrokerUnavailable

NODES = 3


class _Cluster(msgspec.Struct, frozen=True):
    leader: str = ""


class _Info(msgspec.Struct):
    cluster: _Cluster = _Cluster()


class Replicated:
    """`async with Replicated(directory) as brokers`: returns once streams can be created.

    `ports`: two for each node; free ones by default.
    """

    def __init__(self, directory: Path, ports: list[int] | None = None) -> None:
        self._stack = contextlib.AsyncExitStack()
        ports = ports or _free_ports(2 * NODES)
        self.ports, routes = ports[:NODES], ports[NODES:]
        listed = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
        self.nodes = [
            EmbeddedBroker(
                directory / f"n{number}",
                port=self.ports[number],
                config=(
                    f"server_name: n{number}\n"
                    f"cluster {{ name: c, listen: 127.0.0.1:{routes[number]}, routes: [{listed}] }}\n"
                ),
            )
            for number in range(NODES)
        ]

    @property
    def urls(self) -> list[str]:
        return [f"nats://127.0.0.1:{port}" for port in self.ports]

    async def __aenter__(self) -> Self:
        for node in self.nodes:
            await self._stack.enter_async_context(node)
        await self._settled()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in range(NODES):
            self.resume(number)
        await self._stack.aclose()

    async def kill(self, number: int) -> None:
        await self.nodes[number].kill()

    async def start(self, number: int) -> None:
        await self._stack.enter_async_context(self.nodes[number])

    def pause(self, number: int) -> None:
        os.kill(self.nodes[number].pid, signal.SIGSTOP)

    def resume(self, number: int) -> None:
        with contextlib.suppress(RuntimeError, ProcessLookupError):
            os.kill(self.nodes[number].pid, signal.SIGCONT)

    async def leader(self, stream: str) -> int:
        """The number of the node that leads the stream's replicas."""
        async with self._jetstream() as jetstream:
            while True:
                data = await jetstream.api(f"STREAM.INFO.{stream}")
                leader = msgspec.json.decode(data, type=_Info).cluster.leader
                if leader:
                    return int(leader.removeprefix("n"))
                await asyncio.sleep(0.05)

    async def _settled(self) -> None:
        """The nodes have elected who places streams, and all three can hold one."""
        request = {"name": "probe", "subjects": ["probe"], "num_replicas": NODES}
        async with self._jetstream() as jetstream:
            while True:
                with contextlib.suppress(BrokerRefused, BrokerUnavailable):
                    await jetstream.api("STREAM.CREATE.probe", request, timeout=1.0)
                    await jetstream.api("STREAM.DELETE.probe")
                    return
                await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def _jetstream(self) -> AsyncGenerator[JetStream]:
        async with (
            connected(self.urls, name="test", on_reconnect=lambda: None) as connection,
            JetStream(connection) as jetstream,
        ):
            yield jetstream


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
