"""An executor whose threads hold up no exit."""

import asyncio
import subprocess
import sys
import threading

import pytest

from atto.aio import daemon_threads
from atto.aio.daemon_threads import DaemonThreads


def test_it_does_what_is_submitted_and_reuses_its_threads():
    executor = DaemonThreads()
    assert list(executor.map(lambda n: n * 2, range(100))) == [n * 2 for n in range(100)]
    with pytest.raises(KeyError):
        executor.submit({}.__getitem__, "x").result()
    names = {executor.submit(lambda: threading.current_thread().name).result() for _ in range(20)}
    assert len(names) <= 32
    executor.shutdown()
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(print)


def test_what_waits_can_be_cancelled_and_who_hangs_is_waited_for_so_long(monkeypatch):
    monkeypatch.setattr(daemon_threads, "JOIN_PATIENCE", 0.05)
    executor, release = DaemonThreads(), threading.Event()
    hanging = [executor.submit(release.wait) for _ in range(100)]
    executor.shutdown(cancel_futures=True)
    assert any(future.cancelled() for future in hanging)
    release.set()
    assert all(future.cancelled() or future.result(timeout=60) for future in hanging)


def test_a_hanging_call_does_not_hold_up_the_exit():
    script = f"""
import asyncio, sys, threading
sys.path[:0] = {sys.path!r}
from atto.aio import daemon_threads
daemon_threads.JOIN_PATIENCE = 0.1
async def main():
    daemon_threads.use_daemon_threads()
    assert await asyncio.to_thread(lambda: 7) == 7
    task = asyncio.create_task(asyncio.to_thread(threading.Event().wait))
    await asyncio.sleep(0)
    print("left")
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "left\n"


async def test_an_executor_that_is_there_is_kept():
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(int)
    before = loop._default_executor  # type: ignore[attr-defined]
    daemon_threads.use_daemon_threads()
    assert loop._default_executor is before  # type: ignore[attr-defined]
