"""Runs as their caller holds them: detached (`Run`), or tied to the caller's attention (`AttachedRun`)."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Protocol, Self

from atto.protocol.errors import AttoError, RunCancelled, RunFailed
from atto.protocol.events import RunCancelled as CancelledEvent
from atto.protocol.events import RunCompleted, TerminalEvent
from atto.protocol.events import RunFailed as FailedEvent
from atto.protocol.positions import START, Position
from atto_client.iteration import Cursor, Heard, Iteration, Leave

_log = logging.getLogger("atto.client")


class Calls(Protocol):
    """What a run needs of its client."""

    async def listen(self, session: str, run_id: str, after: Position) -> Heard:
        """A listener to the run's events after `after`, replayed and live."""
        ...

    async def cancel(self, session: str, run_id: str, reason: str) -> None:
        """Asks for the run to end."""
        ...


class Run:
    """A handle on a run, which goes on whether or not anybody listens.

    `async for event in run` yields its events, from the first (or from after the position `after`) to the
    terminal one, and may be done again and by many at once.
    """

    def __init__(self, calls: Calls, session: str, run_id: str, *, after: Position = START) -> None:
        self.session = session
        self.run_id = run_id
        self._calls = calls
        self._after = after
        self._terminal: TerminalEvent | None = None
        self._cursor = Cursor(after)

    @property
    def position(self) -> str:
        """Where the last event that was handed out is in the run, as `"1-17"`: for `attach(after=…)`.

        Of the iteration that was begun last. Opaque: compare for equality only.
        """
        return str(self._cursor.position)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(session={self.session!r}, run_id={self.run_id!r})"

    def __aiter__(self) -> Iteration:
        self._cursor = Cursor(self._after)
        return self._events(self._after, self._cursor)

    def _events(self, after: Position, cursor: Cursor) -> Iteration:
        return Iteration(partial(self._attend, after), self._ended, cursor)

    async def _attend(self, after: Position) -> tuple[Heard, Leave]:
        """A listener for one iteration, and what is to be done when that is left."""
        listener = await self._calls.listen(self.session, self.run_id, after)
        return listener, listener.close

    def _ended(self, terminal: TerminalEvent) -> None:
        self._terminal = terminal

    async def result(self) -> RunCompleted:
        """Waits for the end. Raises `RunFailed`, `RunCancelled` (of `atto_client`), `EventsMissing`."""
        if self._terminal is None:
            # From the first event on: whoever goes on after the last one was told of no end.
            async with contextlib.aclosing(self._events(START, Cursor(START))) as events:
                async for _ in events:
                    pass
        return completed(self.session, self.run_id, self._terminal)

    async def cancel(self, reason: str = "") -> None:
        """Ends the run, executing or still queued; returns once the request is safe with the broker.

        How the run ended its terminal event says: it may have been over already.
        """
        await self._calls.cancel(self.session, self.run_id, reason)


class AttachedRun(Run):
    """A run that ends with its caller's interest: leaving it before its terminal event cancels it.

    The turn is submitted when the run is entered (`async with`) or first iterated. After a plain
    `async for` that is left early Python cancels the run soon; `async with` does it there and then. Closing
    the client leaves all of its runs.

    `entered`: where this run is while it is entered, or about to be.
    """

    def __init__(
        self,
        calls: Calls,
        session: str,
        run_id: str,
        *,
        begin: Callable[[], Awaitable[Heard]],
        entered: set["AttachedRun"],
    ) -> None:
        super().__init__(calls, session, run_id)
        self._begin = begin
        self._entered = entered
        # One task at a time enters or leaves, and who comes second finds that done.
        self._door = asyncio.Lock()
        self._listener: Heard | None = None
        self._is_heard = False

    async def __aenter__(self) -> Self:
        await self._enter()
        return self

    async def _enter(self) -> bool:
        """Whether it was not entered yet."""
        async with self._door:
            if self._listener is not None:
                return False
            self._entered.add(self)
            try:
                self._listener = await self._begin()
            except BaseException as error:
                self._entered.discard(self)
                if isinstance(error, asyncio.CancelledError):
                    await self._abandon()  # the turn may have been accepted all the same
                raise
            self._is_heard = False
            return True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._door:
            await self._let_go(self._abandon)

    async def leave(self, patience: float) -> None:
        """Leaves it within `patience` seconds, also if another task is at it.

        Raises `TimeoutError`, and what `cancel` raises: then the run has been left, but may not be cancelled.
        """
        async with asyncio.timeout(patience), self._door:
            await self._let_go(partial(self.cancel, "the caller left"))

    async def _let_go(self, abandon: Callable[[], Awaitable[None]]) -> None:
        listener, self._listener = self._listener, None
        if listener is None:
            return
        try:
            if self._terminal is None:
                await abandon()
        finally:
            self._entered.discard(self)
            await listener.close()

    async def _abandon(self) -> None:
        """Cancels the run even if this task is being cancelled itself."""
        try:
            await asyncio.shield(self.cancel("the caller left"))
        except AttoError as error:
            _log.warning("run %s was left early and could not be cancelled: %s", self.run_id, error)

    async def _attend(self, after: Position) -> tuple[Heard, Leave]:
        """The first iteration takes the events heard since before the submit; later ones replay."""
        enters = self._terminal is None and await self._enter()
        if self._listener is None or self._is_heard:
            return await super()._attend(after)
        self._is_heard = True
        return self._listener, self._leave if enters else _stay

    async def _leave(self) -> None:
        await self.__aexit__(None, None, None)


async def _stay() -> None:
    """Whoever entered the run will leave it."""


def completed(session: str, run_id: str, terminal: TerminalEvent | None) -> RunCompleted:
    """The completed run, or what to raise instead."""
    where = f"run {run_id} of session {session!r}"
    match terminal:
        case RunCompleted():
            return terminal
        case FailedEvent():
            raise RunFailed(
                f"{where} failed ({terminal.code}): {terminal.message}",
                run_id=run_id,
                reason=terminal.code,
                retryable=terminal.retryable,
            )
        case CancelledEvent():
            raise RunCancelled(
                f"{where} was cancelled: {terminal.reason or 'no reason given'}", run_id=run_id
            )
        case _:
            raise RunFailed(f"{where} has no answer yet", run_id=run_id, reason="suspended", retryable=False)
