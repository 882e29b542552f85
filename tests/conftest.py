"""One real broker for all tests, a fresh namespace for each, and nothing left behind."""

import asyncio
import importlib.util
import secrets
from collections.abc import AsyncGenerator, Generator

import msgspec
import nats
import pytest
from hypothesis import settings
from nats.aio.client import Client as Connection

from atto.broker.jetstream import JetStream
from atto.broker.refusals import STREAM_NOT_FOUND
from atto.broker.server import EmbeddedBroker
from atto.protocol.errors import BrokerRefused
from atto.protocol.subjects import Subjects


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a test logs may be no Unicode; between the processes of pytest-xdist only Unicode travels."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report


# `just test-containers` installs what these import
collect_ignore = [] if importlib.util.find_spec("testcontainers") else ["containers"]

settings.register_profile("any speed of the machine", deadline=None)
settings.load_profile("any speed of the machine")

_SETTLING = 20  # iterations of the loop within which what was cancelled has to end


@pytest.fixture(scope="session")
async def broker() -> AsyncGenerator[EmbeddedBroker]:
    """The broker of the whole test run: do not stop or kill this one."""
    async with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
async def janitor(broker: EmbeddedBroker) -> AsyncGenerator[JetStream]:
    """JetStream on a connection that no test touches."""
    connection = await nats.connect(broker.url)
    try:
        async with JetStream(connection) as jetstream:
            yield jetstream
    finally:
        await connection.close()


@pytest.fixture(autouse=True)
async def no_task_is_left_behind() -> AsyncGenerator[None]:
    """Set up before and torn down after every other fixture of a test."""
    before = asyncio.all_tasks()
    yield
    for _ in range(_SETTLING):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0)
    pytest.fail("tasks outlive the test:\n" + "\n".join(map(repr, left)))


@pytest.fixture
async def namespace(request: pytest.FixtureRequest, janitor: JetStream) -> AsyncGenerator[str]:
    """A namespace of the test's own. At the end no consumer of turns may be left, and all is deleted.

    Marked `leaves_consumers`, a test that crashes workers is spared the check.
    """
    name = f"t-{secrets.token_hex(8)}"
    yield name
    consumers = await _names(janitor, f"CONSUMER.NAMES.{Subjects(name).turns_stream}")
    for stream in await _names(janitor, "STREAM.NAMES"):
        if stream.removeprefix("KV_").startswith(f"{name}-"):
            await janitor.api(f"STREAM.DELETE.{stream}")
    if request.node.get_closest_marker("leaves_consumers") is None:
        assert consumers == [], "consumers outlive the test"


@pytest.fixture
async def connection(broker: EmbeddedBroker) -> AsyncGenerator[Connection]:
    """A plain nats-py connection to the broker."""
    connection = await nats.connect(broker.url)
    yield connection
    await connection.close()


@pytest.fixture
async def jetstream(connection: Connection) -> AsyncGenerator[JetStream]:
    """JetStream on `connection`."""
    async with JetStream(connection) as jetstream:
        yield jetstream


class _Names(msgspec.Struct):
    total: int
    consumers: list[str] | None = None
    streams: list[str] | None = None


async def _names(jetstream: JetStream, api: str) -> list[str]:
    """All pages of a listing; empty for a stream that does not exist."""
    names: list[str] = []
    while True:
        try:
            data = await jetstream.api(api, {"offset": len(names)})
        except BrokerRefused as error:
            if error.err_code == STREAM_NOT_FOUND:
                return []
            raise
        page = msgspec.json.decode(data, type=_Names)
        new = page.consumers or page.streams or []
        names += new
        if not new or len(names) >= page.total:
            return names
