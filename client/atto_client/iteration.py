"""One iteration over a run's events."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Protocol, Self

from atto.protocol.events import AnyEvent, TerminalEvent, is_terminal
from atto.protocol.positions import Position


class Heard(Protocol):
    """What an iteration needs of its listener, which is open."""

    async def news(self) -> Sequence[AnyEvent]:
        """The run's next events, up to the terminal one; none if even that is known."""
        ...

    def speaker(self, seq: int) -> int:
        """Which attempt said the event that was handed out under this number."""
        ...

    async def stop_reading(self) -> None:
        """Nobody will ask for news again."""
        ...

    async def close(self) -> None:
        """Nothing more is heard."""
        ...


Leave = Callable[[], Awaitable[None]]


class Cursor:
    """Where an iteration is in its run. It outlives the iteration, and lets go of the listener with it."""

    __slots__ = ("_listener", "_position", "seq")

    def __init__(self, start: Position) -> None:
        self.seq = 0
        self._listener: Heard | None = None
        self._position = start

    @property
    def position(self) -> Position:
        """That of the last event that was handed out."""
        if self._listener is None or self.seq == 0:
            return self._position
        return Position(self._listener.speaker(self.seq), self.seq)

    def follow(self, listener: Heard | None) -> None:
        """The iteration hears `listener` from here on, or nobody any more."""
        self._position = self.position
        self._listener = listener


class Iteration(AsyncIterator[AnyEvent]):
    """Begins when it is first asked: `attend` gives a listener, and what is to be done in the end.

    `cursor` is moved along. `on_last` is told of the terminal event before it is handed out. What is to be
    done in the end is done before that, too, so that it goes to the broker in one write with what the caller
    says next.

    It behaves as an async generator would: one that is dropped half-way is closed soon, `aclose` does it
    there and then. But a generator costs its event loop a task even if it is dropped at its last event, where
    nothing is left to be done, and there nearly all callers drop it.
    """

    def __init__(
        self,
        attend: Callable[[], Awaitable[tuple[Heard, Leave]]],
        on_last: Callable[[TerminalEvent], None],
        cursor: Cursor,
    ) -> None:
        self._attend = attend
        self._on_last = on_last
        self._events: Iterator[AnyEvent] = iter(())
        self._attended: tuple[Heard, Leave] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Task[None] | None = None
        self._is_asked = self._is_over = False
        self._cursor = cursor

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AnyEvent:
        while (event := next(self._events, None)) is None:
            await self._hear()
        self._cursor.seq = event.seq
        if is_terminal(event):
            self._on_last(event)
            await self._end()
        return event

    async def aclose(self) -> None:
        """Ends the iteration; `StopAsyncIteration` is all that comes after."""
        if self._is_asked:
            raise RuntimeError("a task waits for the iteration's next event: cancel it instead")
        await self._end()

    async def _end(self) -> None:
        self._is_over = True
        self._events = iter(())
        attended, self._attended = self._attended, None
        self._cursor.follow(None)
        if attended is not None:
            listener, leave = attended
            try:
                await listener.stop_reading()
            finally:
                await leave()

    def __del__(self) -> None:
        if self._attended is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._end_soon, self._loop)

    def _end_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ending = loop.create_task(self._end())

    async def _hear(self) -> None:
        """Waits for more. Raises `StopAsyncIteration` at the end."""
        if self._is_over:
            raise StopAsyncIteration
        if self._is_asked:
            raise RuntimeError("two tasks ask one iteration for its next event: let each iterate by itself")
        self._is_asked = True
        try:
            if self._attended is None:
                self._loop = asyncio.get_running_loop()
                self._attended = await self._attend()
                self._cursor.follow(self._attended[0])
            events = await self._attended[0].news()
        except BaseException:
            await self._end()
            raise
        finally:
            self._is_asked = False
        if not events:
            await self._end()
        self._events = iter(events)
