"""Paths: who speaks in a run, and where in it a record belongs.

A path is empty for the run's own agent, else segments joined by `/`. A segment is a name that an author gave,
or `<step>:<call id>` of the tool call that asked. A prefix is an ancestor.
"""

import hashlib
import re

MAX_PATH_BYTES = 512
MAX_SEGMENTS = 8
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
"""What an author may call a child."""

_KEPT = 32
_DIGEST = 16
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")
_ALPHABET = tuple(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in range(256))
_STEP = re.compile(r"([0-9]+):")


def of_call(path: str, step: int, call_id: str) -> str:
    """The path of the child that a tool call asks.

    Bytes of the call's id outside `[A-Za-z0-9_.-]` are written `%XX`. An id that becomes longer than 48
    characters is cut, and ends in a hash of itself.
    """
    name = "".join(map(_ALPHABET.__getitem__, call_id.encode("utf-8", "surrogatepass")))
    if len(name) > _KEPT + _DIGEST:
        digest = hashlib.sha256(call_id.encode("utf-8", "surrogatepass")).hexdigest()
        name = f"{name[:_KEPT]}{digest[:_DIGEST]}"
    return under(path, f"{step}:{name}")


def under(path: str, segment: str) -> str:
    """The path of a child."""
    return f"{path}/{segment}" if path else segment


def is_voided(path: str, restarted: str, step: int) -> bool:
    """Whether what was said on `path`, below `restarted`, belongs to `step` of that or a later one."""
    prefix = f"{restarted}/" if restarted else ""
    if not path or path == restarted or not path.startswith(prefix):
        return False
    asked = _STEP.match(path, len(prefix))
    return asked is not None and int(asked[1]) >= step
