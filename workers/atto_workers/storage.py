"""What a broker says that has no room for a stream, in words that say which bound to lower, and how."""

from collections.abc import Mapping
from typing import Any

from atto.broker.refusals import (
    ACCOUNT_LIMIT,
    BOUND_ABOVE_LIMIT,
    BOUND_REQUIRED,
    INSUFFICIENT_STORAGE,
    NO_PEERS,
    TOO_MANY_STREAMS,
)
from atto.protocol.errors import BrokerRefused
from atto.protocol.subjects import Subjects

_MORE_ROOM = (
    "or give JetStream more room (`max_file_store`, by default three quarters of the free disk, or the "
    "account's `max_file`)"
)


def explained(error: BrokerRefused, config: Mapping[str, Any], subjects: Subjects) -> BrokerRefused:
    """The same refusal of a stream, with what to do where its bounds are the reason."""
    name, max_bytes = str(config["name"]), int(config.get("max_bytes", -1))
    size = "no bound" if max_bytes < 0 else f"a bound of {max_bytes:,} bytes, which the broker sets aside"
    settings = {
        subjects.turns_stream: "turns_max_bytes",
        subjects.events_stream: "events_max_bytes",
        subjects.cancels_stream: "cancels_max_bytes",
        subjects.dead_stream: "dead_max_bytes",
    }
    lowered = _lowered(settings[name]) if name in settings else f"Lower other bounds: {_all(settings)}"
    match error.err_code:
        case code if code in {INSUFFICIENT_STORAGE, ACCOUNT_LIMIT, NO_PEERS} and max_bytes >= 0:
            advice = f"{lowered}, {_MORE_ROOM}."
        case code if code in {INSUFFICIENT_STORAGE, ACCOUNT_LIMIT}:
            advice = f"Lower other bounds: {_all(settings)}, {_MORE_ROOM}."
        case code if code == BOUND_ABOVE_LIMIT:
            advice = f"{lowered}, or raise the account's `max_stream_bytes`."
        case code if code == BOUND_REQUIRED:
            advice = (
                "Turn the account's `max_bytes_required` off: not all streams of a namespace have a bound."
            )
        case code if code == TOO_MANY_STREAMS:
            advice = "A namespace has six: raise the account's `max_streams`."
        case _:
            return error
    return BrokerRefused(
        f"stream {name!r} with {size}: {error.description} (error {error.err_code}). {advice}",
        status=error.status,
        err_code=error.err_code,
        description=error.description,
    )


def _lowered(setting: str) -> str:
    option = setting.replace("_", "-")
    return f"Lower it: `atto declare --{option} BYTES`, Topology({setting}=…); 0 sets nothing aside"


def _all(settings: Mapping[str, str]) -> str:
    options = ", ".join(f"--{setting.replace('_', '-')}" for setting in settings.values())
    return f"`atto declare` with {options} BYTES; 0 sets nothing aside"
