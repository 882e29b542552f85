"""Users' code beside the task that waits for it: a thread, or a task, that can be left behind.

Nothing can stop a thread, nor a task that swallows its cancellation. Whoever waits for one goes on in spite;
`left_behind` tells which calls have not ended yet.
"""

import asyncio
import contextvars
import logging
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from atto.aio.user_code import Escaped, UserCode, call_of, current_call

R = TypeVar("R")

MAX_THREADS = 256
"""Synchronous calls that run at one time in a process; others wait until one of them has ended."""
PATIENCE = 3.0
"""Seconds that a cancelled task has to let go, before it is left behind."""
REPEAT = 1.0
"""Seconds after which a task that has not let go is cancelled again."""

_log = logging.getLogger("atto.worker")
_left: "dict[object, UserCode | None]" = {}


def left_behind() -> list[UserCode]:
    """The calls that nobody waits for any more, and that have not ended. From any thread."""
    return [call for call in list(_left.values()) if call is not None]


class Threads:
    """Runs synchronous calls, each in a daemon thread of its own, at most `limit` at one time.

    Not a pool's: hung calls use up no pool that others wait for (name resolution among them), and hold up
    no exit.
    """

    def __init__(self, limit: int = MAX_THREADS) -> None:
        self.limit = limit
        self.running = 0
        self._lock = threading.Lock()
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()

    async def run(self, work: Callable[[], R], name: str) -> R:
        """What `work` returns or raises, from a thread that sees the caller's context variables.

        When the caller is cancelled the thread stays behind until `work` ends, and its outcome is dropped.
        What is no `Exception` is raised as `Escaped`.
        """
        loop = asyncio.get_running_loop()
        await self._begin(loop)
        outcome: asyncio.Future[R] = loop.create_future()
        context = contextvars.copy_context()
        key = object()

        def run() -> None:
            try:
                result = context.run(work)
            except Exception as error:  # noqa: BLE001 - raised again where `outcome` is awaited
                post(_fail, error)
            except BaseException as error:  # noqa: BLE001 - likewise
                post(_escape, error)
            else:
                post(_succeed, result)
            finally:
                _left.pop(key, None)
                self._ended()

        def post(settle: Callable[[asyncio.Future[Any], Any], None], value: Any) -> None:
            with suppress(RuntimeError):  # the loop has closed: nobody waits any more
                loop.call_soon_threadsafe(_unless_done, outcome, settle, value)

        thread = threading.Thread(target=run, name=name, daemon=True)
        try:
            thread.start()
        except BaseException:  # the system has no more threads
            self._ended()
            raise
        try:
            return await outcome
        except asyncio.CancelledError:
            if not outcome.done() or outcome.cancelled():
                _left[key] = current_call()
                if not thread.is_alive():  # it ended right before it was noted
                    _left.pop(key, None)
            raise

    async def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if self.running < self.limit:
                self.running += 1
                return
            place = loop.create_future()
            self._waiting.append((loop, place))
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._ended()  # it was ours already
            raise

    def _ended(self) -> None:
        """A thread is about to end: its place is the next one's."""
        with self._lock:
            while self._waiting:
                loop, place = self._waiting.popleft()
                with suppress(RuntimeError):  # that loop has closed
                    loop.call_soon_threadsafe(self._hand_over, place)
                    return
            self.running -= 1

    def _hand_over(self, place: "asyncio.Future[None]") -> None:
        if place.done():  # who waited was cancelled
            self._ended()
        else:
            place.set_result(None)


threads = Threads()
"""Of this process."""


async def in_task(
    work: Coroutine[Any, Any, R],
    name: str,
    call: UserCode,
    *,
    patience: float = PATIENCE,
    repeat: float = REPEAT,
) -> R:
    """What `work` returns or raises, from a task of its own, which enters `call`.

    When the caller is cancelled the task is, and again every `repeat` seconds. One that has not ended after
    `patience` is left behind. A task that was cancelled by nobody but itself is raised as `Escaped`.
    """
    loop = asyncio.get_running_loop()
    task = loop.create_task(work, name=name)
    ended = loop.create_future()  # awaited rather than the task, which our cancellation would reach first
    on_end = partial(_set_ended, ended)
    task.add_done_callback(on_end)
    try:
        await ended
    except asyncio.CancelledError as cancelled:
        task.remove_done_callback(on_end)
        if await end_tasks([task], patience=patience, repeat=repeat):
            leave_behind(task, call)
            raise
        if task.cancelled():
            await task  # raises the task's own error, which knows the place
        raise cancelled from task.exception()
    if task.cancelled():
        raise Escaped("CancelledError") from _cancellation(task)
    return task.result()


async def end_tasks(
    tasks: "list[asyncio.Task[Any]]", *, patience: float, repeat: float = REPEAT
) -> "list[asyncio.Task[Any]]":
    """Cancels tasks, again and again, and returns those that have not ended after `patience`.

    A cancellation of the caller does not end it before.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + patience
    left = [task for task in tasks if not task.done()]
    while left and loop.time() < until:
        for task in left:
            task.cancel()
        with suppress(asyncio.CancelledError):  # our caller raises that of its own
            await asyncio.wait(left, timeout=min(repeat, max(0.0, until - loop.time())))
        left = [task for task in left if not task.done()]
    return left


def leave_behind(task: "asyncio.Task[Any]", call: UserCode | None = None) -> None:
    """Nobody waits for `task` any more: neither does `asyncio.run`, nor does it complain that it is pending.

    `call`: what it is in, by default what it has entered.
    """
    if task in _left:
        return
    _left[task] = call = call or call_of(task)
    if call is not None:
        _log.error("%s ignores its cancellation: left behind", call)
    asyncio._unregister_task(task)  # noqa: SLF001 # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType] - documented: "Extending asyncio"
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - as asyncio.gather does

    def on_end(ended: asyncio.Task[Any]) -> None:
        _left.pop(ended, None)
        if not ended.cancelled():
            ended.exception()  # nobody else asks for it

    task.add_done_callback(on_end)


def _cancellation(task: asyncio.Task[Any]) -> BaseException | None:
    try:
        task.result()
    except asyncio.CancelledError as error:
        return error
    return None


def _set_ended(ended: "asyncio.Future[None]", _task: object) -> None:
    if not ended.done():
        ended.set_result(None)


def _unless_done(
    outcome: asyncio.Future[Any], settle: Callable[[asyncio.Future[Any], Any], None], value: Any
) -> None:
    if not outcome.done():
        settle(outcome, value)


def _succeed(outcome: asyncio.Future[Any], value: Any) -> None:
    outcome.set_result(value)


def _fail(outcome: asyncio.Future[Any], error: Exception) -> None:
    if isinstance(error, StopIteration):  # no future can carry one
        _escape(outcome, error)
    else:
        outcome.set_exception(error)


def _escape(outcome: asyncio.Future[Any], error: BaseException) -> None:
    escaped = Escaped(type(error).__name__)
    escaped.__cause__ = error
    outcome.set_exception(escaped)
