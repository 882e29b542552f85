"""The bytes of an answer, taken apart: loaded with an SDK, whose HTTP library it knows."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Protocol

import httpx2

from atto.models.failures import Failures
from atto.models.sse import MAX_EVENT, EventParser

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of one streamed answer, all its events and comments together."""


class RawResponse(Protocol):
    """A response of an SDK's, as far as it is read here."""

    @property
    def headers(self) -> Mapping[str, str]:
        """By name, in any case."""
        ...

    def iter_bytes(self) -> AsyncIterator[bytes]:
        """The body as it comes."""
        ...


async def payloads(response: RawResponse, failures: Failures) -> AsyncGenerator[bytes, None]:
    """The data of each event of the stream; of a server that does not stream, or has an error to tell, the
    one document that it answers with. Raises `ModelError`.
    """
    try:
        if response.headers.get("content-type", "").startswith("application/json"):
            yield await _whole(response, failures)
            return
        parser, size = EventParser(), 0
        async for data in response.iter_bytes():
            size += len(data)
            if size > MAX_ANSWER:
                raise failures.refused(f"the answer is larger than {MAX_ANSWER} bytes")
            for payload in parser.feed(data):
                yield payload
    except httpx2.HTTPError as error:
        raise failures.cut(f"the connection broke: {named(error)}") from None


def named(error: BaseException) -> str:
    """An exception in a few words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _whole(response: RawResponse, failures: Failures) -> bytes:
    data = bytearray()
    async for piece in response.iter_bytes():
        data += piece
        if len(data) > MAX_EVENT:
            raise failures.cut(f"the answer is larger than {MAX_EVENT} bytes")
    return bytes(data)
