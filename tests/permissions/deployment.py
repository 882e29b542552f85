"""The configuration of deploy/nats, served by a broker of the tests' own, and the users that it knows."""

import contextlib
import re
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client as Connection

from atto import Agent, ScriptedModel
from atto.broker.connection import connected
from atto.broker.jetstream import JetStream
from atto.broker.server import EmbeddedBroker
from atto.stores import NatsKvStore
from atto_workers import Topology

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nats"


@contextlib.asynccontextmanager
async def serving(
    directory: Path, main: str, *, change: Callable[[str], str] = str, **environment: str
) -> AsyncGenerator[EmbeddedBroker]:
    """A broker with `main` as its configuration, a file of deploy/nats or text that includes some.

    `change`: makes other lines of the files.
    """
    for file in CONFIGURATION.glob("*.conf"):
        (directory / file.name).write_text(change(file.read_text()))
    files = "".join(file.read_text() for file in CONFIGURATION.glob("*.conf"))
    with pytest.MonkeyPatch.context() as patch:
        for variable in re.findall(r"\$(\w+)_PASSWORD", files):
            patch.setenv(f"{variable}_PASSWORD", _password(variable))
        for variable, value in environment.items():
            patch.setenv(variable, value)
        config = f"include {main}\n" if main.endswith(".conf") else main
        async with EmbeddedBroker(directory, config=config) as broker:
            yield broker


def _password(user: str) -> str:
    return f"password-of-{user.lower().replace('_', '-')}"


def inbox(user: str) -> str:
    """The prefix of a user's inboxes: its role comes after the dash."""
    return f"_INBOX.atto.{user.rpartition('-')[2]}.{user}"


def login(user: str) -> dict[str, Any]:
    """What a connection of the user says, as options of `nats.connect`."""
    return {"user": user, "password": _password(user), "inbox_prefix": inbox(user)}


def echo() -> Agent:
    """Answers what the user said."""
    return Agent("echo", ScriptedModel.of(lambda request: request.messages[-1].text))


async def declare(url: str, **options: Any) -> None:
    """What an admin does once: the streams, and the bucket of the sessions."""
    async with (
        connected(url, name="admin", on_reconnect=lambda: None, **options) as connection,
        JetStream(connection) as jetstream,
    ):
        await Topology(partitions=4).declare(jetstream)
        await NatsKvStore(jetstream).declare()


class Tried:
    """A connection that tells what the broker did not allow."""

    def __init__(self, connection: Connection, errors: list[str]) -> None:
        self.connection = connection
        self._errors = errors

    async def refused(self) -> list[str]:
        """The violations so far: the broker reports them before it answers the ping of a flush.

        Two of them, since nats-py's first ping may overtake what is still buffered.
        """
        await self.connection.flush()
        await self.connection.flush()
        found, self._errors[:] = list(self._errors), []
        return found

    async def publish(self, subject: str, data: bytes = b"", *, reply: str = "") -> list[str]:
        """The violations that a publish is."""
        await self.connection.publish(subject, data, reply=reply)
        return await self.refused()

    async def subscribe(self, subject: str, *, queue: str = "") -> list[str]:
        """The violations that a subscription is."""
        await self.connection.subscribe(subject, queue=queue)
        return await self.refused()


@contextlib.asynccontextmanager
async def trying(url: str, **options: Any) -> AsyncGenerator[Tried]:
    """`options`: as of `nats.connect`."""
    errors: list[str] = []

    async def note(error: Exception) -> None:
        errors.append(str(error))

    connection = await nats.connect(url, error_cb=note, **options)
    try:
        yield Tried(connection, errors)
    finally:
        await connection.close()
