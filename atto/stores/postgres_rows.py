"""Snapshots as the rows of Postgres, and back."""

import itertools
from typing import NamedTuple
from uuid import UUID

import asyncpg
import msgspec
from msgspec import Raw
from msgspec.structs import replace

from atto.protocol.errors import StoreCorrupt
from atto.protocol.messages import Message
from atto.protocol.sessions import Record, RunRecord, Snapshot
from atto.stores.encoding import EncodedCommit, decode_continuation, decode_state, reading

_encoder = msgspec.json.Encoder()
_turns = msgspec.json.Decoder(tuple[Message, ...])
_runs = msgspec.json.Decoder(RunRecord)
_journals = msgspec.json.Decoder(tuple[Record, ...])


class Place(NamedTuple):
    """The token of a snapshot: which life of the session it is of, the JSON of its state, and how often
    writers were shut out.
    """

    generation: UUID
    state: Raw
    fences: int = 0


class Turn(NamedTuple):
    """A row of the commits to be inserted."""

    version: int
    run: str | None
    messages: str


def text(data: bytes | Raw) -> str:
    """JSON as Postgres takes it."""
    return str(data, "utf-8")


def joined(added: EncodedCommit) -> str:
    """The messages of a commit as one array."""
    return text(b"[" + b",".join(added.messages) + b"]")


def newest_run(saved: Snapshot) -> str | None:
    """The record of the run that `saved` is after; None after a checkpoint."""
    record = saved.runs[-1] if saved.runs else None
    return text(_encoder.encode(record)) if record and record.version == saved.version else None


def journal(added: EncodedCommit) -> str | None:
    """The journal records of a commit as one array; None for none."""
    return text(b"[" + b",".join(added.records) + b"]") if added.records else None


def past_turns(snapshot: Snapshot) -> list[Turn]:
    """The recent runs of a session that is put, as rows without messages."""
    return [Turn(record.version, text(_encoder.encode(record)), "[]") for record in snapshot.runs]


def at_place(snapshot: Snapshot, place: Place) -> Snapshot:
    """The snapshot with its token, and with a state of its own."""
    return replace(snapshot, state=decode_state(place.state), token=place)


def snapshot_of(session: str, row: asyncpg.Record) -> Snapshot:
    """A row of the statement `load`. Raises `StoreCorrupt`, also if messages are missing."""
    place = Place(row["generation"], Raw(row["state"].encode()), row["fences"])
    with reading(session):
        messages = tuple(itertools.chain.from_iterable(map(_turns.decode, row["turns"])))
        runs = tuple(map(_runs.decode, reversed(row["newest_runs"])))
        if len(messages) != row["messages"]:
            raise StoreCorrupt(f"session {session!r} has {len(messages)} messages of {row['messages']}")
        snapshot = Snapshot(
            session=session,
            version=row["version"],
            messages=messages,
            runs=runs,
            records=tuple(itertools.chain.from_iterable(map(_journals.decode, row["records"]))),
            continuation=decode_continuation(row["continuation"].encode()),
        )
        return at_place(snapshot, place)
