"""A producer in some language as a child process, and a worker of its namespace."""

import asyncio
import contextlib
import json
import os
import re
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from atto import Agent, ScriptedModel
from atto.broker.server import EmbeddedBroker
from atto_client import Client
from atto_workers import Topology, Worker
from tests.producers import languages

LANGUAGES = [
    "javascript",
    "shell",
    pytest.param("go", marks=pytest.mark.producers),
    pytest.param("java", marks=pytest.mark.producers),
    pytest.param("rust", marks=[pytest.mark.producers, pytest.mark.timeout(900)]),  # the first compiles long
]


PATIENCE = 20  # seconds


class Produced:
    """A producer that runs: `line()` is its next event, `end()` the rest of them and its exit code.

    `position`: where it was in the run when it ended; none if it did not listen.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.position: list[str] = []

    async def run_id(self) -> str:
        """What it says first, to standard error."""
        assert self._process.stderr is not None
        word, run_id = (await self._process.stderr.readline()).decode().split()
        assert word == "run"
        return run_id

    async def line(self) -> Any:
        """The next event."""
        assert self._process.stdout is not None
        return json.loads(await self._process.stdout.readline())

    async def end(self) -> tuple[list[Any], int]:
        """The events that were not read yet, and the exit code."""
        out, said = await self._output()
        assert self._process.returncode is not None
        self.position = re.findall(r"^position (.*)$", said.decode(), re.MULTILINE)[-1:]
        return [json.loads(line) for line in out.splitlines()], self._process.returncode

    async def _output(self) -> tuple[bytes, bytes]:
        async with asyncio.timeout(PATIENCE):
            return await self._process.communicate()

    async def error(self) -> tuple[str, int]:
        """What it said to standard error, and the exit code; no event."""
        out, said = await self._output()
        assert out == b""
        assert self._process.returncode is not None
        return said.decode(), self._process.returncode


Producer = Callable[..., contextlib.AbstractAsyncContextManager[Produced]]


@pytest.fixture(scope="session", params=LANGUAGES)
def command(request: pytest.FixtureRequest) -> list[str]:
    try:
        return languages.command(request.param)
    except languages.Unavailable as missing:
        pytest.skip(f"producer in {request.param}: {missing}")


@pytest.fixture
def producer(command: list[str], broker: EmbeddedBroker, namespace: str) -> Producer:
    """`async with producer("session", "text") as produced`; `environment` wins over the test's own."""

    @contextlib.asynccontextmanager
    async def start(*words: str, **environment: str) -> AsyncGenerator[Produced]:
        process = await asyncio.create_subprocess_exec(
            *(*command, *words),
            env={**os.environ, "NATS_URL": broker.url, "ATTO_NAMESPACE": namespace, **environment},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=16 << 20,
        )
        try:
            yield Produced(process)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()

    return start


@pytest.fixture
async def client(broker: EmbeddedBroker, namespace: str) -> AsyncGenerator[Client]:
    async with Client(broker.url, namespace=namespace) as client:
        yield client


@pytest.fixture
def worker(broker: EmbeddedBroker, namespace: str) -> Callable[..., Worker]:
    """`worker(model)`: a worker of the namespace, not yet entered."""

    def make(model: Any, **options: Any) -> Worker:
        agent = model if isinstance(model, Agent) else Agent("tester", ScriptedModel.of(model))
        options = {"topology": Topology(namespace, partitions=2), "grace": 5.0, **options}
        return Worker(agent, nats=broker.url, **options)

    return make
