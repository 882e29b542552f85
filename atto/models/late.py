"""What still comes of an answer once a finish was told."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol

from atto.models.base import Chunk
from atto.protocol.errors import ModelError

_TRAILING = 5.0
"""Seconds for the usage, which comes behind the finish, and for the end of the stream."""
_DOUBTFUL = 30.0
"""The same where the finish came with a piece of the answer: perhaps it comes with every piece."""
_CLOSING = 0.25
"""The same where nothing can come any more but the end, which lets the connection serve again."""


class Reader(Protocol):
    """What makes chunks of payloads."""

    @property
    def finished(self) -> bool:
        """A finish was told."""
        ...

    @property
    def ended_speaking(self) -> bool:
        """It came together with a piece of the answer."""
        ...

    @property
    def resumed(self) -> bool:
        """More of the answer came after it: it meant nothing, and only the end of the stream is the end."""
        ...

    @property
    def done(self) -> bool:
        """Nothing that matters can come any more."""
        ...

    def read(self, payload: bytes) -> list[Chunk]:
        """The chunks in `payload`."""
        ...


async def late_chunks(payloads: AsyncGenerator[bytes, None], reader: Reader) -> AsyncGenerator[Chunk, None]:
    """The chunks that come after a finish: the usage, or more of the answer.

    While the answer seems complete, neither a failure nor a server that does not hang up can spoil it. Raises
    `ModelError` where it was not.
    """
    finished = asyncio.get_running_loop().time()
    while (chunks := await _next(payloads, reader, finished)) is not None:
        for chunk in chunks:
            yield chunk


async def _next(payloads: AsyncGenerator[bytes, None], reader: Reader, finished: float) -> list[Chunk] | None:
    is_complete = reader.done or (reader.finished and not reader.resumed)
    try:
        async with asyncio.timeout_at(_deadline(reader, finished) if is_complete else None):
            payload = await anext(payloads, None)
        return None if payload is None else reader.read(payload)
    except (TimeoutError, ModelError):
        if not is_complete:
            raise
        return None


def _deadline(reader: Reader, finished: float) -> float:
    if reader.done:
        return asyncio.get_running_loop().time() + _CLOSING
    return finished + (_DOUBTFUL if reader.ended_speaking else _TRAILING)
