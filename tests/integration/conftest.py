"""A client in the test's namespace, and workers on demand."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from atto import Agent
from atto.broker.server import EmbeddedBroker
from atto.models import ScriptedModel
from atto_client import Client
from atto_workers import Topology, Worker


@pytest.fixture
async def client(broker: EmbeddedBroker, namespace: str) -> AsyncGenerator[Client]:
    async with Client(broker.url, namespace=namespace) as client:
        yield client


@pytest.fixture
def worker(broker: EmbeddedBroker, namespace: str) -> Callable[..., Worker]:
    """`worker(model)` or `worker(agent)`: a worker of the namespace, with few partitions, not yet entered."""

    def make(agent: Any, **options: Any) -> Worker:
        if not isinstance(agent, Agent):
            agent = Agent("tester", agent if hasattr(agent, "stream") else ScriptedModel.of(agent))
        options = {"topology": Topology(namespace, partitions=4), "grace": 5.0, **options}
        return Worker(agent, nats=broker.url, **options)

    return make
