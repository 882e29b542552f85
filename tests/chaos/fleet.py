"""The processes of a chaos run: the broker, some workers, the clients; most behind a proxy of their own."""

import asyncio
import contextlib
import random
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Self

from atto.broker.server import EmbeddedBroker
from tests.chaos.checker import WORKER_LEAVES, WORKER_SURVIVES, Violation
from tests.chaos.plan import CLIENTS, Plan
from tests.integration.proxy import Proxy
from tests.replicated import NODES, Replicated

START_PATIENCE = 30.0
STOP_PATIENCE = 20.0
"""Seconds beyond its grace in which a worker that was told to stop has ended."""
CLIENTS_PATIENCE = 60.0
"""Seconds beyond theirs in which clients say what they have to say, and hear what they wait for."""
AWAY = re.compile("BrokerUnavailable|StoreUnavailable")
"""In the last words of a worker: what it needs was away when it started."""
_PORTS = range(20000, 30000)
"""Below those that the system gives to outgoing connections, so that none of them takes the port of a broker
that is down."""


class Child:
    """A process, and the proxy through which it reaches the broker (None: it goes straight there)."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, proxy: Proxy | None) -> None:
        self.name = name
        self.process = process
        self.pid = process.pid
        self.proxy = proxy
        self.busy = False
        """Whether a fault has its hands on it, or it is a worker that takes no turns yet."""

    def tell(self, command: str) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.write(f"{command}\n".encode())

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)


class Fleet:
    """`async with Fleet(plan) as fleet`: all of it runs; at the end nothing of it does.

    `mishaps`: what processes did that no fault explains.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._ports = _free_ports(1 if plan.nodes == 1 else 2 * NODES)
        self.urls = [f"nats://127.0.0.1:{port}" for port in self._ports[: plan.nodes]]
        self._cluster = None if plan.nodes == 1 else Replicated(plan.path / "brokers", self._ports)
        self.workers: list[Child] = []
        self.clients: list[Child] = []
        self.mishaps: list[Violation] = []
        self.started = 0
        self._generations = [0] * CLIENTS
        self._broker = self._new_broker()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self._cluster is None:
            await self._broker.__aenter__()
            self._stack.push_async_callback(self.kill_broker)
        else:
            await self._stack.enter_async_context(self._cluster)
        self._stack.push_async_callback(self._kill_all)
        try:
            await asyncio.gather(*(self.start_worker() for _ in range(self.plan.workers)))
            await asyncio.gather(*map(self.start_client, range(CLIENTS)))
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def cluster(self) -> Replicated:
        """The nodes, where there are several. Raises RuntimeError for a single broker."""
        if self._cluster is None:
            raise RuntimeError("there is one broker")
        return self._cluster

    def address(self) -> tuple[str, int]:
        """Where a broker listens, or will."""
        return "127.0.0.1", self._ports[0]

    async def start_worker(self) -> Child:
        """Returns when it takes turns, or has ended."""
        name = f"worker-{self.started}"
        child = await self._start_worker(name)
        while child.process.returncode is not None and AWAY.search(self._log_tail(child)):
            # Whoever runs workers starts such a one again.
            await self.gone(child, expected={child.process.returncode})
            child = await self._start_worker(name)
        child.busy = False
        return child

    async def _start_worker(self, name: str) -> Child:
        # Half of the workers are not proxied: the proxies share a process with one another.
        is_proxied = self.started % 2 == 0
        self.started += 1
        child = await self._start(name, "tests.chaos.worker_process", [name], proxied=is_proxied)
        child.busy = True
        self.workers.append(child)
        await _ready(child)
        return child

    async def start_client(self, index: int) -> Child:
        """The next generation of client `index`; returns when it takes up what the one before left."""
        generation = self._generations[index]
        self._generations[index] += 1
        child = await self._start(
            f"client-{index}-{generation}",
            "tests.chaos.clients",
            [str(index), str(generation)],
            proxied=index == 0,
        )
        child.busy = True
        self.clients.append(child)
        await _ready(child)
        child.busy = False
        return child

    def index_of(self, client: Child) -> int:
        return int(client.name.split("-")[1])

    async def stop_workers(self) -> None:
        """As an operator would."""
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        await asyncio.gather(*(self.gone(worker, expected={0}) for worker in self.workers))

    async def gone(self, child: Child, *, expected: set[int], patience: float | None = None) -> None:
        """Waits for the end of a process, and notes one that is not as it should be."""
        if patience is None:
            patience = self.plan.grace + min(STOP_PATIENCE, self.plan.patience)
        try:
            async with asyncio.timeout(patience):
                code = await child.process.wait()
        except TimeoutError:
            detail = f"{child.name} did not end within {patience:g} s of its stop: {self._log_tail(child)}"
            self.mishaps.append(Violation(WORKER_LEAVES, detail))
            child.process.kill()
            code = await child.process.wait()
        else:
            if code not in expected:
                detail = f"{child.name} ended with {code}: {self._log_tail(child)}"
                self.mishaps.append(Violation(WORKER_SURVIVES, detail))
        self.workers = [worker for worker in self.workers if worker is not child]
        self.clients = [client for client in self.clients if client is not child]
        if child.proxy is not None:
            await child.proxy.__aexit__(None, None, None)

    async def kill_broker(self) -> None:
        await self._broker.kill()

    async def restart_broker(self) -> None:
        """On the same data and the same port."""
        self._broker = self._new_broker()
        await self._broker.__aenter__()

    def _new_broker(self) -> EmbeddedBroker:
        return EmbeddedBroker(self.plan.path / "broker", port=self._ports[0])

    async def _start(self, name: str, module: str, arguments: list[str], *, proxied: bool) -> Child:
        # In a cluster they find another node by themselves.
        proxy = Proxy(self.urls[0]) if proxied and self._cluster is None else None
        if proxy is not None:
            await proxy.__aenter__()
        url = ",".join(self.urls) if proxy is None else proxy.url
        with self._log(name).open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", module, self.plan.directory, *arguments, url),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        return Child(name, process, proxy)

    async def _kill_all(self) -> None:
        for child in [*self.workers, *self.clients]:
            with contextlib.suppress(ProcessLookupError):
                child.process.kill()
            await child.process.wait()
            if child.proxy is not None:
                await child.proxy.__aexit__(None, None, None)

    def _log(self, name: str) -> Path:
        directory = self.plan.path / "logs"
        directory.mkdir(exist_ok=True)
        return directory / f"{name}.log"

    def _log_tail(self, child: Child) -> str:
        return self._log(child.name).read_text(errors="replace")[-2000:]


async def _ready(child: Child) -> None:
    """Returns when the process says that it is, or has ended."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_PATIENCE):
            if not await child.process.stdout.readline():
                await child.process.wait()


def _free_ports(count: int) -> list[int]:
    ports: list[int] = []
    for port in random.sample(_PORTS, len(_PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise RuntimeError("no free port")
