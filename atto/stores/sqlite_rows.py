"""A session as rows, read and written within a transaction on a `SqliteFile`."""

import secrets
import sqlite3
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from atto.protocol.errors import StoreCorrupt
from atto.protocol.messages import Message
from atto.protocol.sessions import Continuation, Record, RunRecord
from atto.stores.encoding import (
    EMPTY_CONTINUATION,
    EncodedCommit,
    decode_continuation,
    decode_messages,
    decode_records,
    decode_state,
    reading,
)

_encoder = msgspec.json.Encoder()
_runs = msgspec.json.Decoder(tuple[RunRecord, ...])


class Generation(Struct, frozen=True):
    """The life of a session from its creation to its deletion; no two are alike, in whatever files.

    `fences`: how often writers of the same version were shut out.
    """

    id: str
    fences: int = 0


class Head(NamedTuple):
    """What a session has one of, in whatever number of messages it has (`length`)."""

    generation: Generation
    version: int
    length: int
    runs: tuple[RunRecord, ...]
    continuation: Raw = EMPTY_CONTINUATION


def new_generation() -> Generation:
    """That of a session about to be created."""
    return Generation(secrets.token_hex(8))


def read_head(connection: sqlite3.Connection, session: str) -> Head | None:
    """None if there is no such session. Raises `StoreCorrupt`."""
    row = connection.execute(
        "SELECT generation, fences, version, length, runs, continuation FROM sessions WHERE session = ?",
        (session,),
    ).fetchone()
    if row is None:
        return None
    generation, fences, version, length, runs, continuation = row
    with reading(session):
        life = Generation(str(generation, "utf-8"), fences)
        return Head(life, version, length, _runs.decode(runs), Raw(continuation))


def read_state(connection: sqlite3.Connection, session: str) -> dict[str, Any]:
    """The keys in the order in which they were first set. Raises `StoreCorrupt`."""
    rows = connection.execute("SELECT key, value FROM state WHERE session = ? ORDER BY rowid", (session,))
    with reading(session):
        return decode_state(_encoder.encode({str(key, "utf-8"): Raw(value) for key, value in rows}))


def read_messages(connection: sqlite3.Connection, session: str, length: int) -> tuple[Message, ...]:
    """Raises `StoreCorrupt`, also if there are not `length` of them."""
    rows = connection.execute("SELECT message FROM messages WHERE session = ? ORDER BY seq", (session,))
    with reading(session):
        messages = decode_messages(message for (message,) in rows)
    if len(messages) != length:
        raise StoreCorrupt(f"session {session!r} has {len(messages)} messages of {length}")
    return messages


def read_records(connection: sqlite3.Connection, session: str) -> tuple[Record, ...]:
    """In the order in which they were committed. Raises `StoreCorrupt`."""
    rows = connection.execute("SELECT record FROM records WHERE session = ? ORDER BY seq", (session,))
    with reading(session):
        return decode_records(record for (record,) in rows)


def read_continuation(head: Head, session: str) -> Continuation:
    """Raises `StoreCorrupt`."""
    with reading(session):
        return decode_continuation(head.continuation)


def write_commit(
    connection: sqlite3.Connection, session: str, head: Head, added: EncodedCommit, updated: datetime
) -> None:
    """Writes what a commit adds, and no more; `head` is the one after it."""
    write_head(connection, session, head, updated)
    start = head.length - len(added.messages)
    connection.executemany(
        "INSERT INTO messages (session, seq, message) VALUES (?, ?, ?)",
        ((session, seq, str(message, "utf-8")) for seq, message in enumerate(added.messages, start)),
    )
    connection.executemany(
        "INSERT INTO state (session, key, value) VALUES (?, ?, ?)"
        " ON CONFLICT (session, key) DO UPDATE SET value = excluded.value",
        ((session, key, str(value, "utf-8")) for key, value in added.changed.items()),
    )
    connection.executemany(
        "DELETE FROM state WHERE session = ? AND key = ?",
        ((session, key) for key in added.commit.change.unset),
    )
    if added.commit.drop_records:
        connection.execute("DELETE FROM records WHERE session = ?", (session,))
    connection.executemany(
        "INSERT INTO records (session, record) VALUES (?, ?)",
        ((session, str(record, "utf-8")) for record in added.records),
    )


def write_head(connection: sqlite3.Connection, session: str, head: Head, updated: datetime) -> None:
    """Writes what a session has one of."""
    runs, continuation = str(_encoder.encode(head.runs), "utf-8"), str(head.continuation, "utf-8")
    life = head.generation
    row = (
        *(session, life.id, life.fences, head.version, head.length),
        *(timestamp(updated), runs, continuation),
    )
    connection.execute(
        "INSERT INTO sessions (session, generation, fences, version, length, updated, runs, continuation)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (session) DO UPDATE"
        " SET generation = excluded.generation, fences = excluded.fences, version = excluded.version,"
        " length = excluded.length, updated = excluded.updated, runs = excluded.runs,"
        " continuation = excluded.continuation",
        row,
    )


def remove(connection: sqlite3.Connection, session: str, idle_since: datetime | None) -> bool:
    """Whether there was such a session, idle since then if that is given."""
    if idle_since is None:
        removed = connection.execute("DELETE FROM sessions WHERE session = ?", (session,))
    else:
        removed = connection.execute(
            "DELETE FROM sessions WHERE session = ? AND updated < ?", (session, timestamp(idle_since))
        )
    if not removed.rowcount:
        return False
    connection.execute("DELETE FROM messages WHERE session = ?", (session,))
    connection.execute("DELETE FROM state WHERE session = ?", (session,))
    connection.execute("DELETE FROM records WHERE session = ?", (session,))
    return True


def page(connection: sqlite3.Connection, after: str, size: int) -> list[tuple[str, str]]:
    """The next `size` sessions after `after`, each with the time of its last commit.

    SQLite compares text by its UTF-8 bytes, which is the order of the code points.
    """
    rows = connection.execute(
        "SELECT session, updated FROM sessions WHERE session > ? ORDER BY session LIMIT ?", (after, size)
    )
    return [(str(session, "utf-8"), str(updated, "utf-8")) for session, updated in rows]


def timestamp(moment: datetime) -> str:
    """UTC, of equal length always, so that the order of the texts is that of the moments."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
