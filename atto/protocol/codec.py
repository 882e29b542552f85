"""JSON in and out. Decoding checks depth and version first, and says what is wrong in a sentence."""

import re
from typing import Any, TypeVar, get_args

import msgspec

from atto.protocol.errors import InvalidTurn, UnsupportedVersion
from atto.protocol.events import AnyEvent, EventBatch, UnknownEvent
from atto.protocol.turns import SCHEMA_VERSION, Cancel, Turn

MAX_DEPTH = 100
"""Levels of arrays and objects in one message. The parser recurses; beyond its limit a thread with a small
stack would be killed (measured with msgspec 0.22: 256 KiB of stack do not survive 10,000 levels)."""

# A string, closed or not, or a bracket. Possessive, so that no input makes the scan look at a byte twice.
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)

_T = TypeVar("_T", Turn, EventBatch, Cancel)
_encoder = msgspec.json.Encoder()
encode = _encoder.encode
"""Any protocol value as compact JSON."""

_turns = msgspec.json.Decoder(Turn)
_batches = msgspec.json.Decoder(EventBatch)
_cancels = msgspec.json.Decoder(Cancel)


class _LooseBatch(msgspec.Struct):
    events: list[msgspec.Raw]
    attempt: int = 1
    since: int = 1
    v: int = SCHEMA_VERSION


class _Head(msgspec.Struct):
    type: str
    seq: int
    path: str = ""
    first: int = 0


class _Probe(msgspec.Struct):
    run_id: Any = None
    v: Any = SCHEMA_VERSION


_loose_batches = msgspec.json.Decoder(_LooseBatch)
_heads = msgspec.json.Decoder(_Head)
_events: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_EVENT_TYPES = frozenset(kind.__struct_config__.tag for kind in get_args(AnyEvent))
_probes = msgspec.json.Decoder(_Probe)


def decode_turn(data: bytes) -> Turn:
    """Raises `InvalidTurn` or `UnsupportedVersion`."""
    return _decode(_turns, data, "turn")


def decode_batch(data: bytes) -> EventBatch:
    """Events of types that a newer release added become `UnknownEvent`.

    Raises `InvalidTurn` or `UnsupportedVersion`.
    """
    try:
        return _decode(_batches, data, "event batch")
    except UnsupportedVersion:
        raise
    except InvalidTurn:
        return _decode_newer(data)


def _decode_newer(data: bytes) -> EventBatch:
    check_depth(data)
    try:
        loose = _loose_batches.decode(data)
        events = tuple(_decode_event(raw) for raw in loose.events)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidTurn(f"event batch is not valid: {error}") from None
    return EventBatch(events=events, attempt=loose.attempt, since=loose.since, v=loose.v)


def _decode_event(raw: msgspec.Raw) -> AnyEvent:
    head = _heads.decode(raw)
    if head.type in _EVENT_TYPES:
        return _events.decode(raw)
    return UnknownEvent(
        seq=head.seq,
        path=head.path,
        first=head.first,
        kind=head.type,
        body=msgspec.json.decode(raw, type=dict[str, Any]),
    )


def decode_cancel(data: bytes) -> Cancel:
    """Raises `InvalidTurn` or `UnsupportedVersion`. An empty body is a cancellation without a reason."""
    return _decode(_cancels, data, "cancellation") if data else Cancel()


def probe_run_id(data: bytes) -> str | None:
    """The run id in a turn that could not be decoded as a whole, where it can be made out."""
    try:
        check_depth(data)
        run_id = _probes.decode(data).run_id
    except (InvalidTurn, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return run_id if isinstance(run_id, str) else None


def check_depth(data: bytes, *, around: int = 0) -> None:
    """Raises `InvalidTurn` if arrays and objects nest deeper than `MAX_DEPTH`, in linear time.

    `around`: levels in which `data` is going to lie itself.
    """
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH - around:
        return
    depth = around
    for match in _STRING_OR_BRACKET.finditer(data):
        first = data[match.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise InvalidTurn(f"JSON is nested more than {MAX_DEPTH} levels deep")
        elif first in b"]}":
            depth -= 1


def _decode(decoder: msgspec.json.Decoder[_T], data: bytes, what: str) -> _T:
    check_depth(data)
    try:
        value = decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _check_version(_version(data), what)
        raise InvalidTurn(f"{what} is not valid: {error}") from None
    _check_version(value.v, what)
    return value


def _version(data: bytes) -> Any:
    try:
        return _probes.decode(data).v
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return SCHEMA_VERSION


def _check_version(version: Any, what: str) -> None:
    if version != SCHEMA_VERSION:
        raise UnsupportedVersion(
            f"{what} has schema version {version!r}; this release reads version {SCHEMA_VERSION}"
        )
