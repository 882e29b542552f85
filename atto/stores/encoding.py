"""What stores share: a commit as JSON, taken apart as far as a store needs it, and JSON read back.

A store keeps JSON, never objects, so that nothing that a caller can change is shared with it, and the
snapshot that `save` returns is the one that `load` will.
"""

import contextlib
import itertools
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from atto.protocol.codec import check_depth
from atto.protocol.errors import ConcurrentWrite, InvalidTurn, NotStorable, SessionGone, StoreCorrupt
from atto.protocol.events import StateChange
from atto.protocol.messages import Message
from atto.protocol.sessions import RECENT_RUNS, Commit, Continuation, Record, Snapshot

EMPTY_STATE = Raw(b"{}")
EMPTY_CONTINUATION = Raw(b"{}")


class _RawChange(Struct, frozen=True):
    set: dict[str, Raw] = {}


class _RawCommit(Struct, frozen=True):
    messages: tuple[Raw, ...] = ()
    change: _RawChange = _RawChange()
    records: tuple[Raw, ...] = ()
    continuation: Raw = Raw()


_encoder = msgspec.json.Encoder()
_commits = msgspec.json.Decoder(Commit)
_raw_commits = msgspec.json.Decoder(_RawCommit)
_raw_states = msgspec.json.Decoder(dict[str, Raw])
_states = msgspec.json.Decoder(dict[str, Any])
_messages = msgspec.json.Decoder(Message)
_continuations = msgspec.json.Decoder(Continuation)


class EncodedCommit(NamedTuple):
    """A commit as it is stored.

    Attributes:
        commit: An independent copy, as it will be read back.
        messages: The JSON of each message.
        changed: The JSON of each value of the state that the commit sets.
        records: The JSON of each journal record.
        continuation: Its JSON, if it changes.

    """

    commit: Commit
    messages: tuple[Raw, ...]
    changed: dict[str, Raw]
    records: tuple[Raw, ...]
    continuation: Raw | None

    def applied_to(self, state: Raw) -> Raw:
        """The JSON of `state` with the commit's change: what is not changed is not encoded again."""
        unset = self.commit.change.unset
        if not (self.changed or unset):
            return state
        values = {**_raw_states.decode(state), **self.changed}
        for key in unset:
            values.pop(key, None)
        return Raw(_encoder.encode(values))


def encode_commit(commit: Commit) -> EncodedCommit:
    """Raises `NotStorable`. What this accepts can be read back."""
    with _storing(f"run {commit.run_id!r}"):
        return _encoded(commit)


def encode_whole(snapshot: Snapshot) -> EncodedCommit:
    """All of a session that is put, as one commit; it belongs to no run. Raises `NotStorable`."""
    check_whole(snapshot)
    with _storing(f"session {snapshot.session!r}"):
        _encoder.encode(snapshot.runs)
        return _encoded(
            Commit(
                run_id="",
                messages=snapshot.messages,
                change=StateChange(set=snapshot.state),
                records=snapshot.records,
                continuation=snapshot.continuation,
            )
        )


def check_whole(snapshot: Snapshot) -> None:
    """Raises `NotStorable` for what is no snapshot of a committed session.

    A version has one record at the most, of which the last ones are kept, and no run reaches beyond the
    history. Sessions from elsewhere may come without any record.
    """
    session, version, runs = snapshot.session, snapshot.version, snapshot.runs
    if version < 1:
        raise NotStorable(f"session {session!r} has no commit: there is nothing to put")
    if len(runs) > RECENT_RUNS:
        raise NotStorable(f"session {session!r} has {len(runs)} runs, more than {RECENT_RUNS}")
    versions = [0, *(record.version for record in runs)]
    if any(earlier >= later for earlier, later in itertools.pairwise(versions)) or versions[-1] > version:
        raise NotStorable(f"session {session!r}: the versions of its runs do not lead to version {version}")
    marks = [0, *(mark for record in runs for mark in (record.begin, record.end)), len(snapshot.messages)]
    is_whole = not runs or runs[-1].end == len(snapshot.messages)
    if not is_whole or any(earlier > later for earlier, later in itertools.pairwise(marks)):
        raise NotStorable(f"session {session!r}: its runs do not follow one another in its history")


def _encoded(commit: Commit) -> EncodedCommit:
    if commit.ended is None and (commit.messages or commit.change.set or commit.change.unset):
        raise ValueError("a checkpoint adds journal records only")
    data = _encoder.encode(commit)
    check_depth(data)
    raw = _raw_commits.decode(data)
    continuation = None if commit.continuation is None else raw.continuation
    return EncodedCommit(_commits.decode(data), raw.messages, raw.change.set, raw.records, continuation)


@contextlib.contextmanager
def _storing(what: str) -> Generator[None, None, None]:
    try:
        yield
    except (TypeError, ValueError, RecursionError, InvalidTurn, msgspec.MsgspecError) as error:
        raise NotStorable(
            f"{what} cannot be stored: {error}. Messages and state hold JSON values only"
        ) from error


def decode_state(data: bytes | Raw) -> dict[str, Any]:
    """A new state on each call. To be called within `reading`."""
    return _states.decode(data)


def decode_records(data: Iterable[bytes | Raw]) -> tuple[Record, ...]:
    """To be called within `reading`."""
    return tuple(map(_states.decode, data))


def decode_continuation(data: bytes | Raw) -> Continuation:
    """To be called within `reading`."""
    return _continuations.decode(data)


def decode_messages(data: Iterable[bytes | Raw]) -> tuple[Message, ...]:
    """To be called within `reading`."""
    return tuple(map(_messages.decode, data))


@contextlib.contextmanager
def reading(session: str) -> Generator[None, None, None]:
    """What cannot be decoded within becomes `StoreCorrupt`."""
    try:
        yield
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StoreCorrupt(f"session {session!r} cannot be read: {error}") from error


def is_new(base: Snapshot) -> bool:
    """Whether a snapshot stands for a session that is not there."""
    return base.version == 0 and base.token is None


def is_newest(base: Snapshot, stored: Snapshot) -> bool:
    """Whether a snapshot without a token is `stored`: run ids tell apart what versions alone do not.

    One of a session in which no run has ended could be of an earlier session of that name: it never is.
    """
    return bool(base.runs) and (base.version, base.runs) == (stored.version, stored.runs)


def conflict(base: Snapshot, *, gone: bool = False) -> ConcurrentWrite:
    """The error of a save on top of a `base` that is no longer the newest; `gone`: since it was deleted."""
    if gone and not is_new(base):
        return SessionGone(f"session {base.session!r} was deleted after version {base.version}")
    return ConcurrentWrite(
        f"session {base.session!r} is no longer at version {base.version}: load it and run the turn again"
    )


def occupied(session: str) -> ConcurrentWrite:
    """The error of a put where there is a session."""
    return ConcurrentWrite(f"session {session!r} is there already: delete it first")
