"""What was observed: a JSON line each, stamped with CLOCK_MONOTONIC, which all processes of a machine share.

Lines lie under `<directory>/sessions/<session token>/`: a file for each client process, one for the tools'
effects, one for the stored snapshot. So a history of any length is checked session by session.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec
from msgspec import Struct

from atto.protocol.events import AnyEvent
from atto.protocol.ids import encode_session
from atto.protocol.messages import Message

now = time.monotonic


class Line(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """`t`: when; for what begins and ends, when it began."""

    t: float


class Invoked(Line, frozen=True, kw_only=True, tag="invoked"):
    """A turn is about to be submitted (perhaps again). `run` is empty where the producer cannot know it."""

    label: str
    run: str
    text: str


class Accepted(Line, frozen=True, kw_only=True, tag="accepted"):
    """The broker has it, at `sequence` of the stream (0: the caller was not told)."""

    label: str
    sequence: int
    duplicate: bool = False


class Refused(Line, frozen=True, kw_only=True, tag="refused"):
    """It was not accepted, says the client."""

    label: str
    error: str


class Unknown(Line, frozen=True, kw_only=True, tag="unknown"):
    """It may or may not have been accepted, says the client."""

    label: str
    error: str


class CancelAsked(Line, frozen=True, kw_only=True, tag="cancel_asked"):
    """A caller is about to ask for the run's end, or to leave it."""

    label: str


class CancelTaken(Line, frozen=True, kw_only=True, tag="cancel_taken"):
    """The broker has the request for the run's end."""

    label: str


class Raised(Line, frozen=True, kw_only=True, tag="raised"):
    """The model raised on purpose in the middle of this turn."""

    label: str
    error: str


class Read(Line, frozen=True, kw_only=True, tag="read"):
    """A client asked for the snapshot at `t`, and was given this version."""

    version: int


class Listening(Line, frozen=True, kw_only=True, tag="listening"):
    """A listener begins. `follows`: it resumes after event `after` what that listener heard before."""

    listener: str
    label: str
    run: str
    after: int = 0
    follows: str = ""


class Heard(Line, frozen=True, kw_only=True, tag="heard"):
    """A listener was handed an event, at this position."""

    listener: str
    event: AnyEvent
    position: str = ""


class Broke(Line, frozen=True, kw_only=True, tag="broke"):
    """Listening raised."""

    listener: str
    error: str


class Effect(Line, frozen=True, kw_only=True, tag="effect"):
    """A tool took effect in process `pid`; `until`: when it was done. `raised`: what it raised after that."""

    until: float
    pid: int
    key: str
    run: str
    step: int
    call: str
    nonce: str
    tool: str = ""
    raised: str = ""


class Stored(Line, frozen=True, kw_only=True, tag="stored"):
    """The session as a fresh client read it after everything had ended."""

    version: int
    messages: tuple[Message, ...]
    state: dict[str, Any]


class Fault(Line, frozen=True, kw_only=True, tag="fault"):
    """`until`: when it was undone, as a stopped process continued or a broker was back. `pid`: 0 if it hit
    no single worker. `is_certain`: that it bit is known; else listeners tell.
    """

    name: str
    until: float
    target: str
    pid: int = 0
    is_certain: bool = False


AnyLine = (
    Invoked | Accepted | Refused | Unknown | CancelAsked | CancelTaken | Raised
    | Read | Listening | Heard | Broke | Effect | Stored
)  # fmt: skip

_encode = msgspec.json.encode
_lines = msgspec.json.Decoder(AnyLine)
_T = TypeVar("_T")


class Recorder:
    """Appends lines to a file, those of one tick of the loop in one write, so that a kill loses no more.

    Lines that come after `close` are dropped.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._pending: list[bytes] = []

    def add(self, line: Struct) -> None:
        if not self._pending:
            asyncio.get_running_loop().call_soon(self.flush)
        self._pending.append(_encode(line))

    def add_now(self, line: Struct) -> None:
        """Returns when the line is in the file: for what must be known whatever happens next."""
        self._pending.append(_encode(line))
        self.flush()

    def flush(self) -> None:
        pending, self._pending = self._pending, []
        if pending and self._file >= 0:
            os.write(self._file, b"\n".join(pending) + b"\n")

    def close(self) -> None:
        self.flush()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def session_directory(directory: Path, session: str) -> Path:
    return directory / "sessions" / encode_session(session)


def read(path: Path) -> Iterator[AnyLine]:
    """The lines of a file; one that a kill cut short ends it."""
    return _read(path, _lines)


def read_as(path: Path, kind: type[_T]) -> Iterator[_T]:
    """Likewise, for a file of one kind of lines."""
    return _read(path, msgspec.json.Decoder(kind))


def tail(file: BinaryIO, kind: type[_T]) -> list[_T]:
    """The whole lines that were added to a file since it was last read from."""
    start = file.tell()
    data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    file.seek(start + len(whole))
    return [msgspec.json.decode(line, type=kind) for line in whole.splitlines()]


def _read(path: Path, decoder: msgspec.json.Decoder[Any]) -> Iterator[Any]:
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decoder.decode(line)
