"""One SQLite file as the SQLite store uses it: opened safely by many processes at once, whole transactions
only, and errors in the store's own words.

How a session lies in it, for a person with the `sqlite3` shell:

    sessions   session, generation, fences, version, length (how many messages), updated (of the last commit),
               runs, continuation
    messages   session, seq (0, 1, 2 …), message
    state      session, key, value
    records    seq (rising), session, record: the journal of a run that has not ended

`message`, `value`, `runs`, `continuation` and `record` are JSON; `updated` is UTC. The generation is the life
of the session from its creation to its deletion. It is no part of the keys: a delete removes all rows in one
transaction, so that those of two lives never meet.
"""

import contextlib
import sqlite3
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Literal, TypeVar

from atto.protocol.errors import NotStorable, StoreCorrupt, StoreError, StoreMismatch, StoreUnavailable

SCHEMA_VERSION = 2
"""In the file as `user_version`."""

APPLICATION_ID = int.from_bytes(b"atto")
"""In the file as `application_id`, so that atto never takes another program's file for its own."""

Synchronous = Literal["FULL", "NORMAL"]

# Tables with a rowid: it keeps a commit's rows together at the end of the table, where messages of up to a
# page need no pages of their own.
_SCHEMA = (
    """
    CREATE TABLE sessions (
        session TEXT NOT NULL PRIMARY KEY,
        generation TEXT NOT NULL,
        fences INTEGER NOT NULL,
        version INTEGER NOT NULL,
        length INTEGER NOT NULL,
        updated TEXT NOT NULL,
        runs TEXT NOT NULL,
        continuation TEXT NOT NULL
    )
    """,
    """
    CREATE TABLE messages (
        session TEXT NOT NULL,
        seq INTEGER NOT NULL,
        message TEXT NOT NULL,
        PRIMARY KEY (session, seq)
    )
    """,
    """
    CREATE TABLE state (
        session TEXT NOT NULL,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (session, key)
    )
    """,
    """
    CREATE TABLE records (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        session TEXT NOT NULL,
        record TEXT NOT NULL
    )
    """,
    "CREATE INDEX records_of_a_session ON records (session)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)

_T = TypeVar("_T")


class SqliteFile:
    """A connection to the file at `path`. All methods are to be called in one and the same thread: SQLite's
    Python module refuses any other.

    Every method raises `StoreUnavailable` if the file is locked past the deadline (of `time.monotonic`), if
    the disk is full, or if it cannot be read or written; `StoreCorrupt` if it is damaged or no database.
    """

    def __init__(self, path: Path, *, synchronous: Synchronous) -> None:
        self._path = path
        self._synchronous = synchronous
        self._connection: sqlite3.Connection | None = None

    def open(self, deadline: float) -> None:
        """Creates the file and its tables unless they are there.

        Raises `StoreMismatch`, with the file untouched, for one of another program or a newer release.
        """
        with self._explained(), contextlib.ExitStack() as undo:
            connection = sqlite3.connect(self._path, isolation_level=None)
            undo.callback(connection.close)
            connection.text_factory = (
                bytes  # JSON is decoded from bytes, and damaged text is a decoder's error
            )
            self._wait_until(connection, deadline)
            self._declare(connection)
            self._use_wal(connection, deadline)
            self._configure(connection)
            undo.pop_all()
            self._connection = connection

    def close(self) -> None:
        """The last one to close a file merges its log into it. No-op if it is not open."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with self._explained():
                connection.close()

    def read(self, work: Callable[[sqlite3.Connection], _T], deadline: float) -> _T:
        """What `work` gives; all that it reads is of one moment."""
        return self._transact("BEGIN", work, deadline)

    def write(self, work: Callable[[sqlite3.Connection], _T], deadline: float) -> _T:
        """What `work` gives, once it is committed; if it raises, nothing of it is. One writer at a time."""
        return self._transact("BEGIN IMMEDIATE", work, deadline)

    def _transact(self, begin: str, work: Callable[[sqlite3.Connection], _T], deadline: float) -> _T:
        connection = self._connection
        if connection is None:
            raise StoreUnavailable(f"{self._path} could not be opened")
        with self._explained():
            self._wait_until(connection, deadline)
            with _transaction(connection, begin):
                return work(connection)

    def _wait_until(self, connection: sqlite3.Connection, deadline: float) -> None:
        """How long SQLite waits for the locks of others."""
        milliseconds = max(0, int((deadline - time.monotonic()) * 1000))
        connection.execute(f"PRAGMA busy_timeout = {milliseconds}")

    def _declare(self, connection: sqlite3.Connection) -> None:
        with _transaction(connection, "BEGIN"):
            ready = self._is_ready(connection)
        if ready:
            return
        with _transaction(connection, "BEGIN IMMEDIATE"):
            if not self._is_ready(connection):  # another one may have been faster
                for statement in _SCHEMA:
                    connection.execute(statement)

    def _is_ready(self, connection: sqlite3.Connection) -> bool:
        """Whether the tables are there; False for an empty file. Raises `StoreMismatch` for any other."""
        application, version, empty = connection.execute(
            "SELECT application_id, user_version, NOT EXISTS (SELECT 1 FROM sqlite_master)"
            " FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if (application, version) == (APPLICATION_ID, SCHEMA_VERSION):
            return True
        if application == APPLICATION_ID:
            raise StoreMismatch(
                f"{self._path} has schema version {version}, this release of atto knows {SCHEMA_VERSION}: "
                "upgrade atto, or use another file"
            )
        if application or version or not empty:
            raise StoreMismatch(f"{self._path} is a database of another program: use another file")
        return False

    def _use_wal(self, connection: sqlite3.Connection, deadline: float) -> None:
        """With a write-ahead log readers and the writer do not wait for one another; the file remembers it.

        The switch needs the file for a moment of its own, for which SQLite does not wait; it does for an
        exclusive transaction, after which the switch is tried again.
        """
        while not self._switched(connection, deadline):
            self._wait_until(connection, deadline)
            with _transaction(connection, "BEGIN EXCLUSIVE"):
                pass

    def _switched(self, connection: sqlite3.Connection, deadline: float) -> bool:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        except sqlite3.OperationalError as error:
            if _code(error) == sqlite3.SQLITE_BUSY and time.monotonic() < deadline:
                return False
            raise
        if mode != b"wal":
            raise StoreMismatch(f"{self._path} lies where SQLite cannot share files: use a local disk")
        return True

    def _configure(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA synchronous = {self._synchronous}")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: without it, a sync stops at the disk's cache
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten, not just released

    @contextlib.contextmanager
    def _explained(self) -> Generator[None, None, None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error) -> StoreError:
        match _code(error):
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED | sqlite3.SQLITE_PROTOCOL:
                return StoreUnavailable(f"{self._path} is locked by another writer: nothing was committed")
            case sqlite3.SQLITE_FULL:
                return StoreUnavailable(f"{self._path}: {error}: nothing was committed, make room")
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return StoreCorrupt(f"{self._path}: {error}")
            case sqlite3.SQLITE_TOOBIG:
                return NotStorable(f"{self._path}: {error}")
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return StoreUnavailable(f"{self._path}: {error}: its directory must be there and writable")
            case sqlite3.SQLITE_IOERR:
                return StoreUnavailable(f"{self._path}: {error}")
            case _:
                return StoreError(f"{self._path}: {error}")


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Generator[None, None, None]:
    """Committed if the body ends, else rolled back: never left open."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 for an error of the Python module itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
