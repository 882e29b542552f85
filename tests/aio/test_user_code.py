"""The door into users' code: whatever it raises, an `Exception` comes out; and the open calls are known."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from atto.aio.user_code import Escaped, UserCode, describe, open_calls, running, words


class PanicException(BaseException):
    """As pyo3's."""


class Mute(Exception):
    def __str__(self):
        raise PanicException("no words")

    __repr__ = __str__


DEATHS = [
    KeyboardInterrupt(),
    SystemExit(3),
    GeneratorExit(),
    PanicException("called `Option::unwrap()` on a `None` value"),
    BaseExceptionGroup("group", [PanicException("x"), ValueError("y")]),
    asyncio.CancelledError(),
]


@pytest.mark.parametrize("error", DEATHS, ids=lambda error: type(error).__name__)
async def test_what_is_no_exception_comes_out_as_one(error):
    with pytest.raises(Escaped) as caught, UserCode("tool", "x"):
        raise error
    assert caught.value.__cause__ is error
    assert describe(caught.value) == describe(error)
    assert not open_calls()


@pytest.mark.parametrize("error", [ValueError("x"), StopIteration(1), StopAsyncIteration(), TimeoutError()])
async def test_an_exception_passes(error):
    with pytest.raises(type(error)) as caught, UserCode("tool", "x"):
        raise error
    assert caught.value is error


async def test_the_tasks_own_cancellation_passes():
    entered = asyncio.Event()

    async def work():
        with UserCode("tool", "x"):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_words_can_be_had_of_an_error_that_has_none():
    assert words(Mute()) == "(its words cannot be read: PanicException)"
    assert describe(Mute()).startswith("Mute: ")
    assert describe(BaseExceptionGroup("g", [Mute(), SystemExit(3)])).endswith("; SystemExit: 3")


async def test_the_open_calls_are_known_to_other_threads():
    loop = asyncio.get_running_loop()
    seen = []

    def look():
        seen.append((running(loop), open_calls()))

    def look_from_a_thread():  # blocks the loop, as users' code might
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    with UserCode("model", "outer", "ann", "r1") as outer:
        with UserCode("tool", "inner", "ann", "r1") as inner:
            look_from_a_thread()
        look_from_a_thread()
        await asyncio.to_thread(look)
    look_from_a_thread()
    assert seen == [(inner, [inner]), (outer, [outer]), (None, [outer]), (None, [])]
    assert str(inner) == "tool inner of run r1 of session 'ann'"
    assert inner.since <= time.monotonic()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks show their context from Python 3.12 on")
async def test_a_task_that_users_code_started_is_known_too():
    loop = asyncio.get_running_loop()

    async def inner():
        return running(loop)

    with UserCode("tool", "x") as call:
        assert await asyncio.create_task(inner()) is call


INTERRUPTED = """
import asyncio, os, signal, sys, time
sys.path[:0] = {path!r}
from atto.aio.user_code import UserCode
async def work():
    with UserCode("tool", "x"):
        for _ in range({signals}):
            os.kill(os.getpid(), signal.{number})
            for _ in range(1000):
                pass
        time.sleep(0.1)
        await asyncio.sleep(10)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored
{setup}
try:
    {enter}
except BaseException as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize(
    ("number", "signals", "enter", "setup", "expected"),
    [
        ("SIGINT", 1, "asyncio.run(work())", "", "KeyboardInterrupt"),
        ("SIGINT", 2, "asyncio.run(work())", "", "KeyboardInterrupt"),
        ("SIGINT", 1, "asyncio.new_event_loop().run_until_complete(work())", "", "KeyboardInterrupt"),
        (
            "SIGTERM",
            1,
            "asyncio.run(work())",
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))",
            "SystemExit",
        ),
    ],
)
def test_a_real_signal_ends_the_process(number, signals, enter, setup, expected):
    script = INTERRUPTED.format(path=sys.path, signals=signals, number=number, enter=enter, setup=setup)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == f"{expected}\n", done.stderr
