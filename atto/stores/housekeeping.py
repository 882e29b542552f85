"""What is done with a store's sessions from outside: forgetting those that are idle, moving them as text.

An exported session is JSON lines: a header, which tells how many messages follow, then one line a message.

    {"format":2,"session":"ann","version":2,"state":{…},"runs":[…],"messages":4}
    {"role":"user","content":[{"type":"text","text":"hi"}]}
    …

Everything works on any `SessionStore`, and while workers run turns of the sessions.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, TypeVar

import msgspec

from atto.protocol.codec import check_depth
from atto.protocol.errors import (
    InvalidSessionId,
    InvalidTurn,
    NoSuchSession,
    NotImportable,
    NotStorable,
)
from atto.protocol.ids import encode_session
from atto.protocol.messages import Message
from atto.protocol.sessions import Continuation, Record, RunRecord, Snapshot
from atto.stores.base import SessionStore
from atto.stores.encoding import check_whole

FORMAT = 2
"""In the header as `format`: the version of what the lines are. Additions do not change it."""


class _Header(msgspec.Struct, kw_only=True, omit_defaults=True):
    format: int
    session: str
    version: int
    state: dict[str, Any]
    runs: tuple[RunRecord, ...]
    messages: int
    records: tuple[Record, ...] = ()
    continuation: Continuation | None = None


class _Probe(msgspec.Struct):
    format: Any = None


class _Line(NamedTuple):
    number: int
    data: bytes


_T = TypeVar("_T")
_encoder = msgspec.json.Encoder()
_headers = msgspec.json.Decoder(_Header)
_probes = msgspec.json.Decoder(_Probe)
_messages = msgspec.json.Decoder(Message)


async def expire(store: SessionStore, idle: timedelta, *, now: datetime | None = None) -> int:
    """Deletes every session whose last commit is more than `idle` ago, and returns how many those were.

    A session that a turn is committed to meanwhile is kept: whether one is idle is decided in the step that
    deletes it. If an error ends it half-way, those deleted so far are gone, and a second call goes on.
    """
    if idle < timedelta(0):
        raise ValueError(f"sessions cannot be idle for {idle}: give a positive time")
    cut_off = (now or datetime.now(UTC)) - idle
    expired = 0
    async for session in store.sessions(idle_since=cut_off):
        expired += await store.delete(session, idle_since=cut_off)
    return expired


async def export_session(store: SessionStore, session: str) -> AsyncIterator[str]:
    """The session as JSON lines, each with its line feed: `file.write(line)` is all that is left to do.

    All lines are of one committed snapshot. Raises `NoSuchSession`, and what `SessionStore.load` raises.
    """
    snapshot = await store.load(session)
    if snapshot is None or snapshot.version == 0:
        raise NoSuchSession(f"there is no session {session!r} to export")
    header = _Header(
        format=FORMAT,
        session=snapshot.session,
        version=snapshot.version,
        state=snapshot.state,
        runs=snapshot.runs,
        messages=len(snapshot.messages),
        records=snapshot.records,
        continuation=None if snapshot.continuation == Continuation() else snapshot.continuation,
    )
    for value in (header, *snapshot.messages):
        yield f"{_encoder.encode(value).decode()}\n"


async def import_session(
    store: SessionStore, lines: Iterable[str] | AsyncIterable[str], *, session: str | None = None
) -> Snapshot:
    """Creates the session that was exported as `lines`, under the name `session` if that is given.

    `lines` may be an open file; they are split at line feeds only, and blank ones count for nothing. All of
    them are read and checked before anything is written, which then happens at once. Raises `NotImportable`
    for lines that are not a whole export; `ConcurrentWrite`, with nothing changed, if the store has such a
    session; `InvalidSessionId`; and what else `SessionStore.put` raises.
    """
    if session is not None:
        encode_session(session)
    return await store.put(_named(await _read(lines), session))


async def _read(lines: Iterable[str] | AsyncIterable[str]) -> Snapshot:
    header: _Header | None = None
    messages: list[Message] = []
    async for line in _numbered(lines):
        if header is None:
            header = _read_header(line)
        elif len(messages) >= header.messages:
            raise NotImportable(f"line {line.number}: there are more messages than the header says")
        else:
            messages.append(_decoded(_messages, line, "message"))
    if header is None:
        raise NotImportable("there is no line: the first one of an exported session is its header")
    if len(messages) < header.messages:
        raise NotImportable(
            f"the lines end after {len(messages)} of {header.messages} messages: the export is not complete"
        )
    return Snapshot(
        session=header.session,
        version=header.version,
        messages=tuple(messages),
        state=header.state,
        runs=header.runs,
        records=header.records,
        continuation=header.continuation or Continuation(),
    )


def _read_header(line: _Line) -> _Header:
    version = _decoded(_probes, line, "header").format
    if version != FORMAT:
        found = "is no header of an exported session" if version is None else f"has format {version!r}"
        raise NotImportable(f"line {line.number} {found}; this release reads format {FORMAT}")
    return _decoded(_headers, line, "header")


def _named(snapshot: Snapshot, name: str | None) -> Snapshot:
    """What is said about the whole of it is said in the header."""
    try:
        if name is None:
            encode_session(snapshot.session)
        check_whole(snapshot)
    except (InvalidSessionId, NotStorable) as error:
        raise NotImportable(f"header: {error}") from error
    return snapshot if name is None else msgspec.structs.replace(snapshot, session=name)


def _decoded(decoder: msgspec.json.Decoder[_T], line: _Line, what: str) -> _T:
    try:
        check_depth(line.data)
        return decoder.decode(line.data)
    except (msgspec.MsgspecError, UnicodeDecodeError, InvalidTurn) as error:
        raise NotImportable(f"line {line.number} is no {what}: {error}") from error


async def _numbered(lines: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[_Line]:
    """Those that are not blank, as the decoder takes them; a lone surrogate is its error to find."""
    number = 0
    async for line in _each(lines):
        number += 1
        if line.strip():
            yield _Line(number, line.encode("utf-8", "surrogatepass"))


async def _each(lines: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[str]:
    if isinstance(lines, AsyncIterable):
        async for line in lines:
            yield line
    else:
        for line in lines:
            yield line
