"""The one door into users' code: tools, models, instructions, stores. Nothing but an `Exception` comes out.

A Rust extension that panics, `sys.exit()` in a tool, a `CancelledError` that a library leaks: each would end
the task, the worker or the whole event loop, and with it the sessions of others. `UserCode` makes `Escaped`
of them, an ordinary exception, so that whoever entered treats it as any other failure of that code.

It also keeps the calls that are open, so that another thread can say which of them holds up the event loop,
and a worker that is left which of them did not let go.
"""

import asyncio
import dis
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar, Token
from types import CodeType, TracebackType
from typing import Any, Literal, Self, cast

Kind = Literal["tool", "model", "instruction", "store", "callback"]

_RAISE = dis.opmap["RAISE_VARARGS"]

_open: "dict[asyncio.Task[Any], UserCode]" = {}
_current: "ContextVar[UserCode | None]" = ContextVar("atto_user_code", default=None)


class Escaped(Exception):
    """User code raised what is not an `Exception` (its `__cause__`), or leaked a cancellation."""


class UserCode:
    """`with UserCode("tool", "look_up", session, run):` around the call and every await of users' code.

    An `Exception` passes, as does the cancellation of this task, a signal (Ctrl-C), and the end of a
    coroutine that is thrown away. Anything else is raised as `Escaped`. `since`: as of `time.monotonic`.
    Entered once.
    """

    __slots__ = ("_outer", "_task", "_token", "kind", "name", "run", "session", "since")

    def __init__(self, kind: Kind, name: str, session: str = "", run: str = "") -> None:
        self.kind = kind
        self.name = name
        self.session = session
        self.run = run
        self.since = 0.0
        self._task: asyncio.Task[Any] | None = None
        self._outer: UserCode | None = None
        self._token: Token[UserCode | None] | None = None

    def __str__(self) -> str:
        """As a log line names it: `tool look_up of run r1 of session 'ann'`."""
        of = f" of run {self.run}" * bool(self.run) + f" of session {self.session!r}" * bool(self.session)
        return f"{self.kind} {self.name}{of}"

    def __enter__(self) -> Self:
        self.since = time.monotonic()
        try:
            self._task = task = asyncio.current_task()
        except RuntimeError:  # outside of any event loop
            task = None
        if task is not None:
            self._outer = _open.get(task)
            _open[task] = self
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task = self._task
        if task is not None:
            if self._outer is None:
                _open.pop(task, None)
            else:
                _open[task] = self._outer
        # A coroutine that is thrown away may be so from another context than that which it entered.
        if self._token is not None and (not isinstance(error, GeneratorExit) or _running_task() is task):
            _current.reset(self._token)
            if not (error is None or isinstance(error, Exception) or must_pass(error)):
                raise Escaped(describe(error)) from error


def must_pass(error: BaseException) -> bool:
    """Whether a coroutine must raise `error`: its task is cancelled, it is thrown away, or a signal came."""
    if isinstance(error, asyncio.CancelledError):
        task = _running_task()
        return task is None or task.cancelling() > 0
    if isinstance(error, GeneratorExit):
        return _running_task() is None
    return is_signal(error)


def _running_task() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:  # a coroutine is thrown away after its loop has ended
        return None


def current_call() -> "UserCode | None":
    """The call that this task, or thread, is in."""
    return _current.get()


def call_of(task: "asyncio.Task[Any]") -> "UserCode | None":
    """The call that `task` is in."""
    return _open.get(task)


def tasks_in(session: str, run: str) -> "list[asyncio.Task[Any]]":
    """The tasks that are in users' code on behalf of this run."""
    return [task for task, call in _open.items() if (call.session, call.run) == (session, run)]


def open_calls() -> "list[UserCode]":
    """The calls that are open now, in all tasks of this process. From any thread."""
    while True:
        try:
            return list(_open.values())
        except RuntimeError:  # it changed meanwhile, in another thread
            continue


def running(loop: asyncio.AbstractEventLoop) -> "UserCode | None":
    """The call whose code `loop` executes at this instant, if any. From any thread.

    Of a task that users' code started itself it is known from Python 3.12 on.
    """
    task = asyncio.current_task(loop)
    if task is None:
        return None
    found = _open.get(task)
    if found is None and sys.version_info >= (3, 12):
        return task.get_context().get(_current)
    return found


def describe(error: BaseException) -> str:
    """Type and words of an error, whatever its `__str__` does; of a group, its members'."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return "; ".join(map(describe, group.exceptions))
    if isinstance(error, Escaped) and error.__cause__ is not None:
        return describe(error.__cause__)
    name, text = type(error).__name__, words(error)
    return f"{name}: {text}" if text else name


def words(error: BaseException) -> str:
    """`str(error)`, which is users' code, too."""
    try:
        return str(error)
    except BaseException as failure:
        if is_signal(failure):
            raise
        return f"(its words cannot be read: {type(failure).__name__})"


def is_signal(error: BaseException) -> bool:
    """Whether a signal raised it (Ctrl-C, a handler that calls `sys.exit`), not the code itself."""
    if threading.current_thread() is not threading.main_thread():
        return False
    handlers = set(_handlers())
    last: TracebackType | None = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in handlers:
            return True
        last, trace = trace, trace.tb_next
    if (
        type(error) is not KeyboardInterrupt
        or signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    ):
        return False
    # Python's own handler leaves no frame: it raises in the middle of whatever ran.
    return last is not None and last.tb_frame.f_code.co_code[last.tb_lasti] != _RAISE


def _handlers() -> Iterator[CodeType]:
    """The code of Python's handlers of signals that end a process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        handler: Any = signal.getsignal(number)
        while hasattr(handler, "func"):  # a partial, as asyncio.Runner's
            handler = handler.func
        code = getattr(handler, "__code__", None)
        if isinstance(code, CodeType):
            yield code
