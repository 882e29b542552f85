"""The events of the Responses API: bytes in, typed values out."""

import json
from typing import Any

import msgspec

from atto.models.surrogates import mend
from atto.protocol.codec import check_depth


class _Incomplete(msgspec.Struct):
    reason: str | None = None


class Response(msgspec.Struct):
    """The response as a whole, as it stands at the event."""

    status: str | None = None
    error: Any = None
    incomplete_details: _Incomplete | None = None
    usage: Any = None
    output: list[dict[str, Any]] | None = None


class Event(msgspec.Struct):
    """Any event. `item`: the provider's own JSON of an output item. `object`: `response`, where a server that
    does not stream answers with one document.
    """

    type: str = ""
    object: str | None = None
    output_index: int | None = None
    item_id: str | None = None
    summary_index: int = 0
    delta: Any = None
    text: str | None = None
    refusal: str | None = None
    arguments: str | None = None
    item: dict[str, Any] | None = None
    response: Response | None = None
    error: Any = None


_events = msgspec.json.Decoder(Event)
_responses = msgspec.json.Decoder(Response)


def decode_event(payload: bytes) -> Event:
    """One event. Raises `ValueError`, `msgspec.MsgspecError` or `InvalidTurn` for what is none."""
    check_depth(payload)
    try:
        event = _events.decode(payload)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):
        event = _loose(payload)
    if not event.type and event.object == "response":
        event.response = _responses.decode(payload)
    if not (event.type or event.response or event.error):
        raise ValueError("it has no type")
    return event


def _loose(payload: bytes) -> Event:
    """Half a surrogate pair is no JSON to msgspec. In deltas the halves are put together later; in an item,
    which is whole, what stays half is replaced.
    """
    event = msgspec.convert(json.loads(payload.decode("utf-8", "replace")), Event)
    if event.item is not None:
        event.item = json.loads(mend(json.dumps(event.item, ensure_ascii=False)))
    return event
