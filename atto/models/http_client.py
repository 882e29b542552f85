"""The HTTP client of the adapters: what a server answers can neither lead a prompt astray nor fill memory.
Loaded with an SDK, whose HTTP library it knows.
"""

from collections.abc import AsyncIterable, AsyncIterator

import httpx2

MAX_ERROR = 64 * 1024
"""Bytes that are read of the body of an error; the rest is left."""


class _Head(httpx2.AsyncByteStream):
    """The first bytes of a body."""

    def __init__(self, stream: httpx2.AsyncByteStream, limit: int) -> None:
        self._stream = stream
        self._left = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._stream:
            yield piece[: self._left]
            self._left -= len(piece)
            if self._left <= 0:
                return

    async def aclose(self) -> None:
        await self._stream.aclose()


async def bound_errors(response: httpx2.Response) -> None:
    """Cuts the body of an answer that is not a success: the SDKs read all of it, however much it is."""
    if not response.is_success and isinstance(response.stream, AsyncIterable):
        response.stream = _Head(response.stream, MAX_ERROR)


def model_client(timeout: httpx2.Timeout, limits: httpx2.Limits) -> httpx2.AsyncClient:
    """A client that follows no redirect, since that would send the prompt to another place than the one
    which the model was given, and that reads no more of an error than is worth telling.
    """
    return httpx2.AsyncClient(
        timeout=timeout,
        limits=limits,
        follow_redirects=False,
        event_hooks={"response": [bound_errors]},
    )
