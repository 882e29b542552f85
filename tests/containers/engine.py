"""The Docker engine of the tests, the image, and what is run from it.

ATTO_TEST_IMAGE names an image that is there already; else `deploy/Dockerfile` is built, with the command
ATTO_TEST_DOCKER (`docker`) and the further arguments ATTO_TEST_BUILD.
"""

import gc
import os
import shlex
import subprocess
import warnings
from pathlib import Path

import docker
import docker.errors
import requests
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HealthcheckWaitStrategy, LogMessageWaitStrategy

ROOT = Path(__file__).parents[2]
IMAGE = "atto:test"
GRACE = 20
HARDENED = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}


def missing_engine() -> str | None:
    """Why no engine answers, or None."""
    # docker-py drops a socket that could not connect: it is collected here, and not in the middle of a test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        reason = _refusal()
        gc.collect()
    return reason


def _refusal() -> str | None:
    try:
        client = docker.from_env(timeout=10)
        client.close()
    except (docker.errors.DockerException, requests.RequestException) as error:
        host = os.environ.get("DOCKER_HOST", "the default socket")
        return f"no Docker engine answers at {host}: start one or set DOCKER_HOST ({error})"
    return None


def built_image() -> str:
    """The name of the image under test."""
    if given := os.environ.get("ATTO_TEST_IMAGE"):
        return given
    command = [
        *shlex.split(os.environ.get("ATTO_TEST_DOCKER", "docker")),
        *("build", "--file", "deploy/Dockerfile", "--tag", IMAGE),
        *shlex.split(os.environ.get("ATTO_TEST_BUILD", "")),
        ".",
    ]
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return IMAGE


def broker(network: Network) -> DockerContainer:
    """`nats` in the network, 4222 on the host."""
    return (
        DockerContainer("nats:2")
        .with_command("-js -sd /data -m 8222")
        .with_network(network)
        .with_network_aliases("nats")
        .with_exposed_ports(4222)
        .waiting_for(LogMessageWaitStrategy("Server is ready").with_startup_timeout(60))
    )


def database(network: Network) -> DockerContainer:
    """`postgres` in the network, 5432 on the host; user, password and database `atto`."""
    container = (
        DockerContainer("postgres:16")
        .with_envs(POSTGRES_USER="atto", POSTGRES_DB="atto", LANG="C.UTF-8")
        .with_env("POSTGRES_PASSWORD", "atto")
        .with_network(network)
        .with_network_aliases("postgres")
        .with_exposed_ports(5432)
        .waiting_for(HealthcheckWaitStrategy().with_startup_timeout(90))
    )
    check = ["CMD", "pg_isready", "--host", "127.0.0.1", "--username", "atto"]
    return container.with_kwargs(healthcheck={"test": check, "interval": 500_000_000, "retries": 100})


def worker(image: str, network: Network, namespace: str) -> DockerContainer:
    """The image as it is, hardened as in deploy; ready to be entered, and then healthy."""
    container = (
        DockerContainer(image)
        .with_envs(
            ATTO_NATS="nats://nats:4222",
            ATTO_NAMESPACE=namespace,
            ATTO_STORE="postgres://atto:atto@postgres:5432/atto",
            ATTO_GRACE=str(GRACE),
        )
        .with_network(network)
        .with_exposed_ports(8080)
        .waiting_for(HealthcheckWaitStrategy().with_startup_timeout(90))
    )
    # The image's own check, asked more often.
    check = {"test": ["CMD", "python", "/app/healthy.py"], "interval": 500_000_000, "retries": 100}
    container.tmpfs["/tmp"] = ""  # noqa: S108 - a file system of the container's own
    return container.with_kwargs(healthcheck=check, **HARDENED)


def address(container: DockerContainer, port: int) -> str:
    """HOST:PORT of a published port. What is published on loopback is published for IPv4."""
    host = container.get_container_host_ip()
    return f"{'127.0.0.1' if host == 'localhost' else host}:{container.get_exposed_port(port)}"
