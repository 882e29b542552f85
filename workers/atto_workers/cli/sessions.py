"""`atto sessions`."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from atto.broker.jetstream import JetStream
from atto.protocol.errors import NoSuchSession, NotImportable, StoreUnavailable, TopologyMissing
from atto.protocol.ids import encode_session
from atto.protocol.sessions import Snapshot
from atto.protocol.subjects import Subjects
from atto.stores import SessionStore, open_store
from atto.stores.housekeeping import export_session, import_session
from atto_workers.cli.exits import Unusable
from atto_workers.cli.history import told
from atto_workers.cli.options import BROKER, OUTPUT, Broker, Output, Session, Store
from atto_workers.cli.progress import progress
from atto_workers.terminal import quoted, shown, shown_json
from atto_workers.topology import stream_info

app = App(name="sessions", help="List, show, export, import and remove sessions.")

_SUFFIX = ".jsonl"
_SQLITE = "sqlite:///"
_LONGEST_NAME = 200  # characters; file systems take 255 bytes, encrypted ones less
_HASH = 32  # hexadecimal digits: 128 bits


@app.command
def ls(*, store: Store = "nats-kv", broker: Broker = BROKER, output: Output = OUTPUT) -> None:
    """Lists the sessions."""

    async def work() -> None:
        async with _opened(store, broker) as opened:
            async for session in opened.sessions():
                output.show({"session": session}, quoted(session))

    asyncio.run(work())


@app.command(name="show")
def show_(
    session: Session, *, store: Store = "nats-kv", broker: Broker = BROKER, output: Output = OUTPUT
) -> None:
    """Shows what is committed to a session."""

    async def work() -> None:
        async with _opened(store, broker) as opened:
            snapshot = await opened.load(session)
        if snapshot is None or snapshot.version == 0:
            raise NoSuchSession(f"there is no session {session!r}")
        lines = [f"version {snapshot.version}, {len(snapshot.messages)} messages"]
        lines += [line for message in snapshot.messages for line in told(message)]
        output.show(snapshot, "\n".join(lines))

    asyncio.run(work())


@app.command
def export(
    session: Session | None = None,
    *,
    all_to: Annotated[Path | None, Parameter(help="A directory for all sessions; replaces files.")] = None,
    store: Store = "nats-kv",
    broker: Broker = BROKER,
    output: Output = OUTPUT,
) -> None:
    """Writes a session to stdout as JSON lines, or all sessions to a directory, one file each."""
    if (session is None) == (all_to is None):
        raise Unusable("name a session, or a directory for all of them (--all-to)")
    if all_to is not None:
        all_to.mkdir(parents=True, exist_ok=True)

    async def work() -> None:
        async with _opened(store, broker) as opened:
            if session is not None:
                async for line in export_session(opened, session):
                    sys.stdout.write(f"{shown_json(line)}\n")
            if all_to is not None:
                count = await _export_all(opened, all_to)
                output.show({"exported": count}, f"{count} sessions exported to {shown(str(all_to))}")

    asyncio.run(work())


@app.command(name="import")
def import_(
    *sources: Path,
    name: Annotated[Session | None, Parameter(help="Another name for it, if it is one session.")] = None,
    store: Store = "nats-kv",
    broker: Broker = BROKER,
    output: Output = OUTPUT,
) -> None:
    """Creates sessions from exports: files, or directories of them. None may be there already."""
    files = [file for source in sources for file in _files(source)]
    if not files:
        raise Unusable("there is nothing to import: name files, or directories that hold some")
    if name is not None and len(files) > 1:
        raise Unusable(f"--name is for one session, not for {len(files)}")

    async def work() -> None:
        async with _opened(store, broker, creates=True) as opened:
            with progress("sessions imported", len(files)) as done:
                for file in files:
                    made = await _imported(opened, file, name)
                    output.show({"session": made.session, "version": made.version}, quoted(made.session))
                    done()

    asyncio.run(work())


@app.command
def rm(
    session: Session, *, store: Store = "nats-kv", broker: Broker = BROKER, output: Output = OUTPUT
) -> None:
    """Removes a session for good."""

    async def work() -> bool:
        async with _opened(store, broker) as opened:
            return await opened.delete(session)

    if not asyncio.run(work()):
        raise NoSuchSession(f"there is no session {session!r}")
    output.show({"session": session}, f"removed {quoted(session)}")


async def _export_all(store: SessionStore, directory: Path) -> int:
    """How many there were. A session that is deleted meanwhile is none of them."""
    sessions = [session async for session in store.sessions()]
    count = 0
    taken: set[str] = set()
    with progress("sessions exported", len(sessions)) as done:
        for session in sessions:
            name = _file_name(session, taken)
            # Half a file must not look like an export: it gets its name when it is whole.
            part = directory / f"{name}.part"
            try:
                with suppress(NoSuchSession), part.open("w", encoding="utf-8", newline="\n") as file:
                    async for line in export_session(store, session):
                        file.write(line)
                    part.replace(directory / f"{name}{_SUFFIX}")
                    count += 1
            finally:
                part.unlink(missing_ok=True)
            done()
    return count


def _file_name(session: str, taken: set[str]) -> str:
    """The session's token; cut, and ended by a hash, where it is longer than file systems take, or `taken` by
    another session where they do not tell `A` from `a`.

    The name is for people: an import reads the session's id from the file itself.
    """
    name = token = encode_session(session)
    if len(token) > _LONGEST_NAME or token.lower() in taken:
        digest = hashlib.sha256(token.encode()).hexdigest()[:_HASH]
        name = f"{token[: _LONGEST_NAME - _HASH - 1]}.{digest}"  # no token holds a dot
    taken.add(name.lower())
    return name


async def _imported(store: SessionStore, file: Path, name: str | None) -> Snapshot:
    try:
        with file.open(encoding="utf-8", newline="\n") as lines:
            return await import_session(store, lines, session=name)
    except NotImportable as error:
        raise NotImportable(f"{file}: {error}") from error


def _files(source: Path) -> list[Path]:
    if not source.exists():
        raise Unusable(f"{source}: No such file or directory")
    return sorted(source.glob(f"*{_SUFFIX}")) if source.is_dir() else [source]


@asynccontextmanager
async def _opened(url: str, broker: Broker, *, creates: bool = False) -> AsyncGenerator[SessionStore]:
    """Unless `creates`, it must be there: who only looks makes no bucket or file out of a slip of the pen.

    Raises `TopologyMissing`, `StoreUnavailable`.
    """
    async with AsyncExitStack() as stack:
        jetstream = await stack.enter_async_context(broker.jetstream()) if url == "nats-kv" else None
        if not creates:
            await _check_there(url, jetstream, broker.namespace)
        opened = open_store(url, jetstream=jetstream, namespace=broker.namespace)
        yield await stack.enter_async_context(opened)


async def _check_there(url: str, jetstream: JetStream | None, namespace: str) -> None:
    path = Path(url.removeprefix(_SQLITE))
    if url.startswith(_SQLITE) and not await asyncio.to_thread(path.exists):
        raise StoreUnavailable(f"there is no file {path}: name the one that the workers' --store names")
    if jetstream is not None:
        bucket = Subjects(namespace).sessions_bucket
        if await stream_info(jetstream, f"KV_{bucket}") is None:
            raise TopologyMissing(
                f"namespace {namespace!r} keeps no sessions on this broker: name another with --namespace, "
                "or where they are kept with --store"
            )
