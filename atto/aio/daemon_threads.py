"""An executor whose threads hold up no exit."""

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

JOIN_PATIENCE = 5.0
"""Seconds that threads have to end, once the event loop closes."""

_Job = tuple["Future[Any]", Callable[[], Any]]


class DaemonThreads(ThreadPoolExecutor):
    """As asyncio's default executor, for `asyncio.to_thread` and name resolution.

    The standard one's threads are joined when the loop closes and once more when the interpreter ends: a
    tool that leaves a call hanging in one of them would keep the process for ever.
    """

    def __init__(self) -> None:
        self._limit = min(32, (os.cpu_count() or 1) + 4)
        super().__init__(self._limit)
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._daemons: list[threading.Thread] = []
        self._idle = 0
        self._guard = threading.Lock()
        self._is_shut = False

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> "Future[R]":
        """As `Executor.submit`."""
        future: Future[R] = Future()
        with self._guard:
            if self._is_shut:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._jobs.put((future, lambda: fn(*args, **kwargs)))
            if self._idle > 0:
                self._idle -= 1
            elif len(self._daemons) < self._limit:
                name = f"asyncio_{len(self._daemons)}"
                thread = threading.Thread(target=self._serve, name=name, daemon=True)
                self._daemons.append(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """As `Executor.shutdown`, but waits `JOIN_PATIENCE` at the most."""
        with self._guard:
            self._is_shut = True
            if cancel_futures:
                self._cancel_waiting()
            for _ in self._daemons:
                self._jobs.put(None)
        until = time.monotonic() + JOIN_PATIENCE
        for thread in self._daemons if wait else ():
            thread.join(max(0.0, until - time.monotonic()))

    def _cancel_waiting(self) -> None:
        while not self._jobs.empty():
            job = self._jobs.get()
            if job is not None:
                job[0].cancel()

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, work = job
            if future.set_running_or_notify_cancel():
                _settle(future, work)
            del job, future, work
            with self._guard:
                self._idle += 1


def use_daemon_threads() -> None:
    """Gives the running event loop such an executor, unless it has one already."""
    loop = asyncio.get_running_loop()
    if getattr(loop, "_default_executor", None) is None:
        loop.set_default_executor(DaemonThreads())


def _settle(future: "Future[Any]", work: Callable[[], Any]) -> None:
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - raised again where the future is asked
        future.set_exception(error)
    else:
        future.set_result(result)
