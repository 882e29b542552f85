"""Clients of SDKs, one for each event loop: those of openai and anthropic break in a second one."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

ClientT = TypeVar("ClientT")


class PerLoop(Generic[ClientT]):
    """Makes a client when an event loop first asks for one, and closes it when told to on that loop."""

    def __init__(self, make: Callable[[], ClientT], close: Callable[[ClientT], Awaitable[object]]) -> None:
        self._make = make
        self._close = close
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, ClientT] = WeakKeyDictionary()

    def get(self) -> ClientT:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = self._make()
        return client

    async def aclose(self) -> None:
        """Closes the client of the running loop; the next `get` makes a new one."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await self._close(client)
