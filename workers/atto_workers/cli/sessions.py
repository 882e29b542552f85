"""`atto sessions`."""

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from cyclopts import App

from atto.broker.connection import connected
from atto.broker.jetstream import JetStream
from atto.protocol.errors import NoSuchSession
from atto.stores import SessionStore, open_store
from atto.stores.housekeeping import export_session, import_session
from atto_workers.cli.options import BROKER, Broker, show
from atto_workers.cli.runs import Json

app = App(name="sessions", help="List, show, export, import and remove sessions.")


@app.command
def ls(*, store: str = "nats-kv", broker: Broker = BROKER, as_json: Json = False) -> None:
    """Lists the sessions."""

    async def work() -> None:
        async with _opened(store, broker) as opened:
            async for session in opened.sessions():
                show({"session": session}, session, as_json=as_json)

    asyncio.run(work())


@app.command(name="show")
def show_(session: str, *, store: str = "nats-kv", broker: Broker = BROKER, as_json: Json = False) -> None:
    """Shows what is committed to a session."""

    async def work() -> None:
        async with _opened(store, broker) as opened:
            snapshot = await opened.load(session)
        if snapshot is None or snapshot.version == 0:
            raise NoSuchSession(f"there is no session {session!r}")
        lines = [f"version {snapshot.version}, {len(snapshot.messages)} messages"]
        lines += [repr(message) for message in snapshot.messages]
        show(snapshot, "\n".join(lines), as_json=as_json)

    asyncio.run(work())


@app.command
def export(session: str, *, store: str = "nats-kv", broker: Broker = BROKER) -> None:
    """Writes a session to stdout as JSON lines."""

    async def work() -> None:
        async with _opened(store, broker) as opened:
            async for line in export_session(opened, session):
                sys.stdout.write(line.rstrip("\n") + "\n")

    asyncio.run(work())


@app.command(name="import")
def import_(
    file: Path,
    *,
    name: str | None = None,
    store: str = "nats-kv",
    broker: Broker = BROKER,
    as_json: Json = False,
) -> None:
    """Creates a session from an export."""

    async def work() -> None:
        with file.open(encoding="utf-8", newline="\n") as lines:
            async with _opened(store, broker) as opened:
                made = await import_session(opened, lines, session=name)
        show({"session": made.session, "version": made.version}, made.session, as_json=as_json)

    asyncio.run(work())


@app.command
def rm(session: str, *, store: str = "nats-kv", broker: Broker = BROKER, as_json: Json = False) -> None:
    """Removes a session for good."""

    async def work() -> bool:
        async with _opened(store, broker) as opened:
            return await opened.delete(session)

    if not asyncio.run(work()):
        raise NoSuchSession(f"there is no session {session!r}")
    show({"session": session}, f"removed {session}", as_json=as_json)


@asynccontextmanager
async def _opened(url: str, broker: Broker) -> AsyncGenerator[SessionStore]:
    if url != "nats-kv":
        async with open_store(url) as store:
            yield store
        return
    async with (
        connected(broker.nats, name="atto-cli", on_reconnect=lambda: None, **broker.options()) as connection,
        JetStream(connection) as jetstream,
        open_store(url, jetstream=jetstream, namespace=broker.namespace) as store,
    ):
        yield store
