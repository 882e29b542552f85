"""Positions: how far a listener came in a run, as `"1-17"`: event 17 as attempt 1 said it."""

import re
from typing import NamedTuple

from atto.protocol.errors import InvalidPosition

_POSITION = re.compile(r"([0-9]{1,16})-([0-9]{1,16})", re.ASCII)


class Position(NamedTuple):
    """After the event `seq` of `attempt`. To callers it is an opaque string."""

    attempt: int = 0
    seq: int = 0

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Raises `InvalidPosition`."""
        match = _POSITION.fullmatch(text) if isinstance(text, str) else None  # pyright: ignore[reportUnnecessaryIsInstance]
        if match is None:
            raise InvalidPosition(
                f"{text!r} is not a position: use one that a run gave, such as '1-17'; '0-0' is the start"
            )
        return cls(int(match[1]), int(match[2]))


START = Position()
"""Before the first event."""
