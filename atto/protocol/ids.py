"""Session ids and run ids: what callers write, and how it travels.

An id is any non-empty string of at most 128 bytes of UTF-8. On the wire each byte outside
``[A-Za-z0-9_-]`` is written ``=XX`` (upper-case hexadecimal), so that an id is always one token of a
NATS subject and a valid key of a KV bucket, can be read by a person, and decodes to exactly one string.
"""

import os
import re
import threading
import time

from atto.protocol.errors import InvalidRunId, InvalidSessionId

MAX_ID_BYTES = 128
_SALT_BYTES = 12

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_ALPHABET = tuple(chr(byte) if byte in _PLAIN else f"={byte:02X}" for byte in range(256))
_ALREADY_PLAIN = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_ESCAPE = re.compile(rb"=([0-9A-F]{2})")


def encode_session(session: str) -> str:
    """The token of a session id. Raises `InvalidSessionId`."""
    try:
        return _encode(session)
    except ValueError as error:
        raise InvalidSessionId(f"session id {_shorten(session)} {error}") from None


def decode_session(token: str) -> str:
    """The session id that a token stands for. Raises `InvalidSessionId` if it is not canonical."""
    try:
        return _decode(token)
    except ValueError as error:
        raise InvalidSessionId(f"session token {_shorten(token)} {error}") from None


def encode_run(run: str) -> str:
    """The token of a run id. Raises `InvalidRunId`."""
    try:
        return _encode(run)
    except ValueError as error:
        raise InvalidRunId(f"run id {_shorten(run)} {error}") from None


def decode_run(token: str) -> str:
    """The run id that a token stands for. Raises `InvalidRunId` if it is not canonical."""
    try:
        return _decode(token)
    except ValueError as error:
        raise InvalidRunId(f"run token {_shorten(token)} {error}") from None


def message_id(session: str, run: str) -> str:
    """A turn's `Nats-Msg-Id`, `<session>.<run>.<salt>`: new with every call, and nobody else can derive it.

    The broker drops what comes under an id that it has seen, and says that it has it: whoever knew another's
    id could have their turn acknowledged, and never run. Raises `InvalidSessionId`, `InvalidRunId`.
    """
    return f"{encode_session(session)}.{encode_run(run)}.{os.urandom(_SALT_BYTES).hex()}"


def escape(text: str) -> str:
    """Any text as one token, without a limit: for what is not an id but must be filed under something."""
    return "".join(map(_ALPHABET.__getitem__, text.encode("utf-8", "backslashreplace"))) or "="


def _encode(text: str) -> str:
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ValueError(f"is a {type(text).__name__}: it must be a string")  # noqa: TRY004 - it becomes ours
    if not text:
        raise ValueError("is empty: name it with 1 to 128 bytes")
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise ValueError("is not valid Unicode: it contains a lone surrogate") from None
    if len(raw) > MAX_ID_BYTES:
        raise ValueError(f"has {len(raw)} bytes, at most {MAX_ID_BYTES} are allowed: use a hash of it")
    if _ALREADY_PLAIN.fullmatch(text):
        return text
    return "".join(map(_ALPHABET.__getitem__, raw))


def _decode(token: str) -> str:
    if _ALREADY_PLAIN.fullmatch(token) and len(token) <= MAX_ID_BYTES:
        return token
    raw = _ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), token.encode("utf-8", "surrogatepass"))
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise ValueError("does not decode to valid UTF-8") from None
    if _encode(text) != token:
        raise ValueError("is not encoded: write each byte outside [A-Za-z0-9_-] as =XX")
    return text


def _shorten(text: str) -> str:
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        return repr(text)
    return repr(text) if len(text) <= 64 else f"{text[:48]!r}… ({len(text)} characters)"


# RFC 9562, section 5.7: 48 bits of Unix milliseconds, the version, 12 bits, the variant, 62 bits.
_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62


class _Clock:
    """Milliseconds and a counter of 12 bits in one number, which grows with every tick.

    Where ticks outrun the counter, or the clock steps back, the milliseconds run ahead of the time
    (RFC 9562, section 6.2, method 1).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def tick(self) -> int:
        with self._lock:
            self._last = max((time.time_ns() // 1_000_000) << 12, self._last + 1)
            return self._last

    def unlock(self) -> None:
        """In a process that was just forked: whichever thread held the lock is not in it."""
        self._lock = threading.Lock()


_clock = _Clock()
if hasattr(os, "register_at_fork"):  # where there is fork at all
    os.register_at_fork(after_in_child=_clock.unlock)


def new_run_id() -> str:
    """A UUIDv7; those made by one process sort in the order in which they were made."""
    tick = _clock.tick()
    return _uuid7(tick >> 12, tick & 0xFFF, int.from_bytes(os.urandom(8)))


def run_id_of_sequence(sequence: int, timestamp_ms: int) -> str:
    """The run id of a turn that came without one: the UUIDv7 of its place in the stream.

    Every delivery of the message gives the same id; its last 12 digits are the stream sequence that the
    broker acknowledged to the producer, in hexadecimal.
    """
    return _uuid7(timestamp_ms, 0, sequence)


def _uuid7(timestamp_ms: int, middle: int, tail: int) -> str:
    low = _VARIANT | (tail & ((1 << 62) - 1))
    digits = f"{((timestamp_ms & ((1 << 48) - 1)) << 80) | _VERSION_7 | (middle << 64) | low:032x}"
    # As `uuid.UUID` writes it, at a third of the cost.
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
