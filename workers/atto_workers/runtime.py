"""The front door: broker, worker and client in one process, or just worker and client beside a cluster."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from atto.agents import Agent
from atto.broker.server import EmbeddedBroker
from atto.protocol.errors import BrokerFailed, BrokerUnavailable, ConnectionClosed
from atto.protocol.messages import InputPart, Origin
from atto.protocol.sessions import Snapshot
from atto.stores import SessionStore
from atto_client import AttachedRun, Client, Run
from atto_workers.gateway import ModelPolicies, ModelUsage
from atto_workers.topology import Topology
from atto_workers.worker import Worker, stopped


class Runtime:
    """`async with Runtime(agent) as runtime: async for event in runtime.run("user-123", "hi")`.

    Without `nats` a broker is started beside this process and stopped with it; its data lies in `data_dir`
    and lasts, or in a temporary directory and does not. With `nats` (addresses) the runtime joins what is
    there.
    `store`, `models`: as of `Worker`. `worker`: further arguments for `Worker`; `options`: those of
    `nats.connect`, for worker and client.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        nats: str | list[str] | None = None,
        data_dir: str | Path | None = None,
        namespace: str = "atto",
        store: SessionStore | str = "nats-kv",
        topology: Topology | None = None,
        models: ModelPolicies | None = None,
        worker: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if nats is not None and data_dir is not None:
            raise ValueError(
                "`data_dir` is for the embedded broker; with `nats` the data lies with that broker"
            )
        self.agent = agent
        self._nats = nats
        self._data_dir = None if data_dir is None else Path(data_dir)
        self._namespace = namespace if topology is None else topology.subjects.namespace
        self._worker: dict[str, Any] = {
            "namespace": self._namespace,
            "store": store,
            "topology": topology,
            "models": models,
            **options,
            **(worker or {}),
        }
        self._options = options
        self._stack: contextlib.AsyncExitStack | None = None
        self._opened: Worker | None = None
        self._client: Client | None = None
        self._url: str | list[str] | None = None

    @property
    def url(self) -> str | list[str]:
        """Where the broker is: for further workers and clients. Raises `BrokerUnavailable` when not open."""
        if self._url is None:
            raise BrokerUnavailable(
                "the runtime is not open: use it inside `async with Runtime(…) as runtime`"
            )
        return self._url

    @property
    def client(self) -> Client:
        """The runtime's client. Raises `BrokerUnavailable` when not open."""
        if self._client is None:
            raise BrokerUnavailable(
                "the runtime is not open: use it inside `async with Runtime(…) as runtime`"
            )
        return self._client

    @property
    def usage(self) -> Mapping[Origin, ModelUsage]:
        """As `Worker.usage`. Raises `BrokerUnavailable` when not open."""
        if self._opened is None:
            raise BrokerUnavailable(
                "the runtime is not open: use it inside `async with Runtime(…) as runtime`"
            )
        return self._opened.usage

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            url = self._nats
            broker: EmbeddedBroker | None = None
            if url is None:
                broker = await stack.enter_async_context(EmbeddedBroker(self._data_dir))
                url = broker.url
            worker = await stack.enter_async_context(Worker(self.agent, nats=url, **self._worker))
            client = await stack.enter_async_context(Client(url, namespace=self._namespace, **self._options))
            if broker is not None:
                watch = asyncio.create_task(watch_broker(broker, client), name="broker watch")
                stack.push_async_callback(stopped, watch)
            watch = asyncio.create_task(watch_worker(worker, client), name="worker watch")
            stack.push_async_callback(stopped, watch)
            self._stack = stack.pop_all()
            self._url, self._opened, self._client = url, worker, client
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        self._client = self._url = self._opened = None
        if stack is not None:
            await stack.aclose()

    def run(
        self,
        session: str,
        user_input: str | Sequence[InputPart],
        *,
        run_id: str | None = None,
        expires: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AttachedRun:
        """As `Client.run`."""
        return self.client.run(
            session, user_input, run_id=run_id, expires=expires, metadata=metadata, headers=headers
        )

    async def submit(
        self,
        session: str,
        user_input: str | Sequence[InputPart],
        *,
        run_id: str | None = None,
        expires: datetime | None = None,
        metadata: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Run:
        """As `Client.submit`."""
        return await self.client.submit(
            session, user_input, run_id=run_id, expires=expires, metadata=metadata, headers=headers
        )

    def attach(self, session: str, run_id: str, *, after: str = "") -> Run:
        """As `Client.attach`."""
        return self.client.attach(session, run_id, after=after)

    async def snapshot(self, session: str) -> Snapshot:
        """As `Client.snapshot`."""
        return await self.client.snapshot(session)


async def watch_broker(broker: EmbeddedBroker, client: Client) -> None:
    """Whoever listens to a run must learn that nothing will come any more."""
    await broker.ended()
    client.fail(
        BrokerFailed(
            "the nats-server of this runtime has ended: with a `data_dir` all goes on at the next start"
        )
    )


async def watch_worker(worker: Worker, client: Client) -> None:
    """Likewise where the worker's own connection is closed for good: nobody may be left to answer."""
    client.fail(ConnectionClosed(f"the worker of this runtime has ended: {await worker.wait_broken()}"))
