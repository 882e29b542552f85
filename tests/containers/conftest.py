"""NATS, Postgres and the image, started once; skipped, loudly, where no Docker engine answers."""

import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator

import pytest
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from atto_client import Client
from tests.containers.engine import address, broker, built_image, database, missing_engine, worker


@pytest.fixture(scope="session")
def engine() -> None:
    """An engine that answers."""
    if reason := missing_engine():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def image(engine: None) -> str:
    return built_image()


@pytest.fixture(scope="session")
def network(engine: None) -> Iterator[Network]:
    with Network() as network:
        yield network


@pytest.fixture(scope="session")
def nats_container(network: Network) -> Iterator[DockerContainer]:
    with broker(network) as container:
        yield container


@pytest.fixture(scope="session")
def postgres_container(network: Network) -> Iterator[DockerContainer]:
    with database(network) as container:
        yield container


@pytest.fixture
def own_namespace() -> str:
    return f"c-{secrets.token_hex(4)}"


@pytest.fixture
def start_worker(
    image: str,
    network: Network,
    nats_container: DockerContainer,
    postgres_container: DockerContainer,
    own_namespace: str,
) -> Iterator[Callable[[], DockerContainer]]:
    """Starts a worker of the test's namespace and returns when it is healthy. All are removed at the end."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(worker(image, network, own_namespace))


@pytest.fixture
async def caller(nats_container: DockerContainer, own_namespace: str) -> AsyncGenerator[Client]:
    """A client on the host."""
    url = f"nats://{address(nats_container, 4222)}"
    async with Client(url, namespace=own_namespace) as client:
        yield client
