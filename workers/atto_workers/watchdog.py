"""A thread that watches the event loop: says who blocks it, and keeps the worker's presence meanwhile.

A tool that blocks the loop (`time.sleep`, a synchronous HTTP client) keeps its worker from renewing its key;
another one would take over and run the tool again, and so on. While the process itself makes progress, the
thread stands in; beyond a limit the worker is as good as dead, and others take over.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from atto.aio.user_code import running

BEAT = 0.25
"""Seconds between two signs of life of the event loop, and between two looks at them."""
LATE = 0.5
"""Seconds without a sign of life after which the thread stands in."""
NAMED = 1.0
"""Seconds without a sign of life after which the log names the code that blocks the loop."""
LIMIT = 30.0
"""Seconds for which the thread stands in."""
_FRAMES = 2
_POLL = 0.05

_log = logging.getLogger("atto.worker")


class Watchdog:
    """`async with Watchdog(worker, stand_in)` watches the loop that it is entered in.

    `stand_in` keeps the worker present, in an event loop of its own, until it is cancelled; None where
    nothing can: then blocks are only named. `limit`: seconds for which a block is covered. `beat`, `late`,
    `named`: as of the constants.
    """

    def __init__(
        self,
        worker: str,
        stand_in: Callable[[], Coroutine[Any, Any, None]] | None,
        *,
        limit: float = LIMIT,
        beat: float = BEAT,
        late: float = LATE,
        named: float = NAMED,
    ) -> None:
        self._worker = worker
        self._stand_in = stand_in
        self._limit = limit
        self._beat = beat
        self._late = late
        self._named = named
        self._alive_at = 0.0
        self._culprit = ""
        self._is_given_up = False
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watched = 0

    async def __aenter__(self) -> Self:
        self._loop, self._watched = asyncio.get_running_loop(), threading.get_ident()
        self._stopped.clear()
        self._tick()
        self._thread = threading.Thread(target=self._watch, name=f"watchdog-{self._worker}", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.join)

    def _tick(self) -> None:
        self._alive_at = time.monotonic()
        if self._loop is not None:
            self._timer = self._loop.call_later(self._beat, self._tick)

    def _watch(self) -> None:
        looked_at = time.monotonic()
        while not self._stopped.wait(self._beat):
            now = time.monotonic()
            if now - looked_at > self._beat + self._named:
                self._tell_of_pause(now - looked_at)
            elif now - self._alive_at > self._late:
                self._see_through(self._alive_at)
            looked_at = time.monotonic()

    def _see_through(self, since: float) -> None:
        """One time in which the loop gives no sign of life."""
        self._culprit, self._is_given_up = "", False
        if self._stand_in is not None:
            try:
                asyncio.run(self._cover(since, self._stand_in))
            except Exception as error:  # noqa: BLE001 - whatever it is, the loop is still to be watched
                _log.warning("nobody stands in for worker %s, whose loop is blocked: %r", self._worker, error)
        while self._lasts(since):
            time.sleep(_POLL)
        if self._culprit:
            seconds = self._alive_at - since
            _log.warning("%s was blocked for %.1f s%s", self._name, seconds, self._culprit)

    async def _cover(self, since: float, stand_in: Callable[[], Coroutine[Any, Any, None]]) -> None:
        standing = asyncio.create_task(stand_in())
        while self._lasts(since) and not self._is_given_up:
            await asyncio.wait([standing], timeout=_POLL)
            if standing.done():
                break
        while not standing.done():  # again and again: while it connects, nats-py may swallow one
            standing.cancel()
            await asyncio.wait([standing], timeout=_POLL)
        if not standing.cancelled() and (error := standing.exception()) is not None:
            raise error

    def _lasts(self, since: float) -> bool:
        """Looks once more, and tells of a block that has lasted for long enough."""
        if self._stopped.is_set() or self._alive_at > since:
            return False
        seconds = time.monotonic() - since
        if seconds > self._named and not self._culprit:
            self._culprit = self._find_culprit()
            _log.warning(
                "%s has been blocked for %.1f s%s: all its sessions stand still. Await instead, or make the "
                "tool a plain `def`, which runs in a thread",
                *(self._name, seconds, self._culprit),
            )
        if seconds > self._limit and not self._is_given_up:
            self._is_given_up = True
            _log.error(
                "%s has been blocked for %.0f s%s: it is given up, and others take its partitions over",
                *(self._name, seconds, self._culprit),
            )
        return True

    def _tell_of_pause(self, seconds: float) -> None:
        """Not even this thread ran."""
        _log.warning(
            "nothing in the process of worker %s ran for %.1f s%s: it was paused, or native code held "
            "Python's lock. After 3 s others take over",
            *(self._worker, seconds, self._find_culprit()),
        )

    def _find_culprit(self) -> str:
        """` by …`: the user's call that the loop executes now, and where in its code that is."""
        call = None if self._loop is None else running(self._loop)
        # Documented, underscore or not, for debugging.
        frame = sys._current_frames().get(self._watched)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        places = [] if frame is None else traceback.extract_stack(frame)[-_FRAMES:]
        where = " > ".join(f"{place.filename}:{place.lineno} in {place.name}" for place in places)
        return (f" by {call}" if call is not None else "") + f" (at {where or 'an unknown place'})"

    @property
    def _name(self) -> str:
        return f"the event loop of worker {self._worker}"
