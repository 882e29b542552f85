"""Sessions in one SQLite file: for one machine, with nothing else to run.

How a session lies in the file: `atto.stores.sqlite_file`.
"""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from msgspec.structs import replace

from atto.protocol.errors import StoreUnavailable
from atto.protocol.ids import encode_session
from atto.protocol.sessions import Commit, Snapshot
from atto.stores import sqlite_rows as rows
from atto.stores.encoding import (
    EMPTY_CONTINUATION,
    EncodedCommit,
    conflict,
    encode_commit,
    encode_whole,
    is_new,
    is_newest,
    occupied,
)
from atto.stores.sqlite_file import SqliteFile, Synchronous

_LISTED_AT_ONCE = 500

_T = TypeVar("_T")
_Work = Callable[[sqlite3.Connection], _T]


class _Opened(NamedTuple):
    """The file, and the one thread that uses it."""

    file: SqliteFile
    thread: ThreadPoolExecutor


def _now() -> datetime:
    return datetime.now(UTC)


class SqliteStore:
    """A `SessionStore` in the file at `path`, created where there is none; its directory must be there.

        async with SqliteStore("sessions.db") as store: ...

    Any number of stores, tasks and processes of one machine may share the file. Each commit is one
    transaction: it survives the death of the process, and with `synchronous="FULL"`, the default, the loss of
    power too, since each one is synced to the disk before `save` returns. `"NORMAL"` saves that sync, the
    larger part of what a commit takes; a loss of power may then undo the last commits, though never part of
    one, and the death of a process none. An acknowledged turn is not run again, so that is history lost.

    A save writes the messages of its commit, the values of the state that it sets, and the records of recent
    runs, however long the session is. SQLite runs in one thread of the store's own, so the event loop never
    waits for a disk. Calls take effect in the order in which they were made; one that is cancelled takes
    effect wholly or not at all.

    While another process writes, a call waits up to `busy_seconds` from when it was made, then raises
    `StoreUnavailable`. So does a write to a full disk, as often as it is tried until there is room. In both
    cases the message says that nothing was committed. What is deleted is overwritten in the file, at the
    latest when the last store on it is closed; the file keeps its size, and the room is used again.

    `clock` gives the time of each commit, by which idle sessions are found.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        busy_seconds: float = 5.0,
        synchronous: Synchronous = "FULL",
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._path = Path(path).absolute()
        self._busy_seconds = busy_seconds
        self._synchronous: Synchronous = synchronous
        self._clock = clock
        self._opened: _Opened | None = None
        self._closed: Future[None] | None = None

    def __repr__(self) -> str:
        return f"SqliteStore({str(self._path)!r})"

    async def open(self) -> None:
        """Opens the file; no-op if it is open. Safe to call by many processes at once on a new file.

        Raises `StoreMismatch` or `StoreCorrupt`, with the file untouched, if it is of another program, of a
        newer release, or no database; `StoreUnavailable`.
        """
        if self._opened is not None:
            return
        file = SqliteFile(self._path, synchronous=self._synchronous)
        self._opened = _Opened(file, ThreadPoolExecutor(1, thread_name_prefix="atto-sqlite"))
        try:
            await self._in_thread(SqliteFile.open)
        except BaseException:
            self._begin_to_close()
            raise

    async def close(self) -> None:
        """Lets the calls under way end, then closes the file; no-op if it is not open."""
        self._begin_to_close()
        if self._closed is not None:
            await asyncio.shield(asyncio.wrap_future(self._closed))

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def load(self, session: str) -> Snapshot | None:
        """As `SessionStore.load`."""
        encode_session(session)
        return await self._read(lambda connection: _load(connection, session))

    async def save(self, base: Snapshot, commit: Commit) -> Snapshot:
        """As `SessionStore.save`. Raises `NotStorable` for what has no JSON form.

        Only a save that is cancelled leaves its outcome open: it may yet be committed, before any later call.
        """
        encode_session(base.session)
        added = encode_commit(commit)
        updated = self._clock()
        return await self._write(lambda connection: _save(connection, base, added, updated))

    async def fence(self, base: Snapshot) -> Snapshot:
        """As `SessionStore.fence`."""
        encode_session(base.session)
        updated = self._clock()
        return await self._write(lambda connection: _fence(connection, base, updated))

    async def put(self, snapshot: Snapshot) -> Snapshot:
        """As `SessionStore.put`. Raises `NotStorable` for what is no committed session."""
        encode_session(snapshot.session)
        whole = encode_whole(snapshot)
        updated = self._clock()
        return await self._write(lambda connection: _put(connection, snapshot, whole, updated))

    async def delete(self, session: str, *, idle_since: datetime | None = None) -> bool:
        """As `SessionStore.delete`."""
        encode_session(session)
        return await self._write(lambda connection: rows.remove(connection, session, idle_since))

    async def sessions(self, *, after: str = "", idle_since: datetime | None = None) -> AsyncIterator[str]:
        """As `SessionStore.sessions`. What is created, used or deleted meanwhile may be listed or not.

        Read in batches of sessions, idle or not, so that a listing never holds up other calls for long.
        """
        before = None if idle_since is None else rows.timestamp(idle_since)
        while batch := await self._read(_page_after(after)):
            for session, updated in batch:
                if before is None or updated < before:
                    yield session
            after = batch[-1][0]

    async def _read(self, work: _Work[_T]) -> _T:
        return await self._in_thread(lambda file, deadline: file.read(work, deadline))

    async def _write(self, work: _Work[_T]) -> _T:
        return await self._in_thread(lambda file, deadline: file.write(work, deadline))

    async def _in_thread(self, call: Callable[[SqliteFile, float], _T]) -> _T:
        """`call` with its deadline, after those before it. Cancelled, it runs to its end or not at all."""
        if self._opened is None:
            raise StoreUnavailable(f"{self!r} is not open")
        file, thread = self._opened
        deadline = time.monotonic() + self._busy_seconds
        return await asyncio.get_running_loop().run_in_executor(thread, call, file, deadline)

    def _begin_to_close(self) -> None:
        """The thread closes the file after the calls under way, and ends, whether or not it is waited for."""
        opened, self._opened = self._opened, None
        if opened is not None:
            self._closed = opened.thread.submit(opened.file.close)
            opened.thread.shutdown(wait=False)


def _page_after(after: str) -> _Work[list[tuple[str, str]]]:
    return lambda connection: rows.page(connection, after, _LISTED_AT_ONCE)


def _load(connection: sqlite3.Connection, session: str) -> Snapshot | None:
    head = rows.read_head(connection, session)
    if head is None:
        return None
    return Snapshot(
        session=session,
        version=head.version,
        messages=rows.read_messages(connection, session, head.length),
        state=rows.read_state(connection, session),
        runs=head.runs,
        records=rows.read_records(connection, session),
        continuation=rows.read_continuation(head, session),
        token=head.generation,
    )


def _save(
    connection: sqlite3.Connection, base: Snapshot, added: EncodedCommit, updated: datetime
) -> Snapshot:
    stored = rows.read_head(connection, base.session)
    if not _is_at(stored, base):
        raise conflict(base, gone=_is_gone(stored, base))
    before = stored or rows.Head(rows.new_generation(), 0, 0, ())
    saved = base.after(added.commit, token=before.generation)
    head = rows.Head(
        *(before.generation, saved.version, before.length + len(added.messages), saved.runs),
        added.continuation or before.continuation,
    )
    rows.write_commit(connection, base.session, head, added, updated)
    return replace(saved, state=rows.read_state(connection, base.session))


def _fence(connection: sqlite3.Connection, base: Snapshot, updated: datetime) -> Snapshot:
    stored = rows.read_head(connection, base.session)
    if not _is_at(stored, base):
        raise conflict(base, gone=_is_gone(stored, base))
    before = stored or rows.Head(rows.new_generation(), 0, 0, ())
    fenced = rows.Generation(before.generation.id, before.generation.fences + 1)
    rows.write_head(connection, base.session, before._replace(generation=fenced), updated)
    return replace(base, token=fenced)


def _put(
    connection: sqlite3.Connection, snapshot: Snapshot, whole: EncodedCommit, updated: datetime
) -> Snapshot:
    if rows.read_head(connection, snapshot.session) is not None:
        raise occupied(snapshot.session)
    generation = rows.new_generation()
    continuation = whole.continuation or EMPTY_CONTINUATION
    head = rows.Head(generation, snapshot.version, len(snapshot.messages), snapshot.runs, continuation)
    rows.write_commit(connection, snapshot.session, head, whole, updated)
    messages, state = whole.commit.messages, rows.read_state(connection, snapshot.session)
    return replace(snapshot, messages=messages, state=state, token=generation)


def _is_at(stored: rows.Head | None, base: Snapshot) -> bool:
    if stored is None:
        return is_new(base)
    if isinstance(base.token, rows.Generation):
        return (base.token, base.version) == (stored.generation, stored.version)
    return is_newest(base, Snapshot(session=base.session, version=stored.version, runs=stored.runs))


def _is_gone(stored: rows.Head | None, base: Snapshot) -> bool:
    token = base.token
    return stored is None or (isinstance(token, rows.Generation) and token.id != stored.generation.id)
