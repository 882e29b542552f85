"""What stores share: a commit as JSON, taken apart as far as a store needs it, and JSON read back.

A store keeps JSON, never objects, so that nothing that a caller can change is shared with it, and the
snapshot that `save` returns is the one that `load` will.
"""

import contextlib
from collections.abc import Generator, Iterable
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from atto.protocol.codec import check_depth
from atto.protocol.errors import ConcurrentWrite, InvalidTurn, NotStorable, StoreCorrupt
from atto.protocol.events import StateChange
from atto.protocol.messages import Message
from atto.protocol.sessions import RECENT_RUNS, Commit, Snapshot

EMPTY_STATE = Raw(b"{}")


class _RawChange(Struct, frozen=True):
    set: dict[str, Raw] = {}


class _RawCommit(Struct, frozen=True):
    messages: tuple[Raw, ...]
    change: _RawChange = _RawChange()


_encoder = msgspec.json.Encoder()
_commits = msgspec.json.Decoder(Commit)
_raw_commits = msgspec.json.Decoder(_RawCommit)
_raw_states = msgspec.json.Decoder(dict[str, Raw])
_states = msgspec.json.Decoder(dict[str, Any])
_messages = msgspec.json.Decoder(Message)


class EncodedCommit(NamedTuple):
    """A commit as it is stored.

    `commit`: an independent copy, as it will be read back. `messages`: the JSON of each message.
    `changed`: the JSON of each value of the state that the commit sets.
    """

    commit: Commit
    messages: tuple[Raw, ...]
    changed: dict[str, Raw]

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
        change = StateChange(set=snapshot.state)
        return _encoded(Commit(run_id="", messages=snapshot.messages, change=change))


def check_whole(snapshot: Snapshot) -> None:
    """Raises `NotStorable` for what is no snapshot of a committed session.

    Each version has a record, of which the last ones are kept, and the newest ends where the history does.
    Sessions from elsewhere may come without any record.
    """
    version, runs = snapshot.version, snapshot.runs
    ends = [record.end for record in runs]
    if version < 1:
        raise NotStorable(f"session {snapshot.session!r} has no commit: there is nothing to put")
    if len(runs) > min(version, RECENT_RUNS):
        raise NotStorable(f"session {snapshot.session!r} has {len(runs)} runs at version {version}")
    if ends and (ends != sorted(ends) or ends[0] < 0 or ends[-1] != len(snapshot.messages)):
        raise NotStorable(f"session {snapshot.session!r}: its runs do not end where its history does")


def _encoded(commit: Commit) -> EncodedCommit:
    data = _encoder.encode(commit)
    check_depth(data)
    raw = _raw_commits.decode(data)
    return EncodedCommit(_commits.decode(data), raw.messages, raw.change.set)


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
    """Whether a snapshot without a token is `stored`: run ids tell apart what versions alone do not."""
    return base.version > 0 and (base.version, base.runs) == (stored.version, stored.runs)


def conflict(base: Snapshot) -> ConcurrentWrite:
    """The error of a save on top of a `base` that is no longer the newest."""
    return ConcurrentWrite(
        f"session {base.session!r} is no longer at version {base.version}: load it and run the turn again"
    )


def occupied(session: str) -> ConcurrentWrite:
    """The error of a put where there is a session."""
    return ConcurrentWrite(f"session {session!r} is there already: delete it first")
