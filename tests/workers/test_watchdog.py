"""A blocked event loop is named, and somebody stands in for it while it lasts, up to a limit."""

import asyncio
import threading
import time

import pytest

from atto.aio.user_code import UserCode
from atto_workers.watchdog import Watchdog

QUICK = {"beat": 0.01, "late": 0.05, "named": 0.1}


class StandIn:
    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()
        self.threads = set[int]()

    async def __call__(self) -> None:
        self.threads.add(threading.get_ident())
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


def messages(caplog, level: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == level]


async def named(caplog, level: str, words: str) -> str:
    """The first message of the level with these words, waited for."""
    while not (found := [message for message in messages(caplog, level) if words in message]):
        await asyncio.sleep(0.01)
    return found[0]


@pytest.mark.parametrize("seconds", [0.4])
async def test_the_call_that_blocks_is_named_and_covered_until_it_ends(caplog, seconds):
    stand_in = StandIn()
    async with asyncio.timeout(20), Watchdog("w1", stand_in, limit=60.0, **QUICK):
        with UserCode("tool", "look_up", "ann", "r1"):
            assert stand_in.began.wait(10) is True
            time.sleep(seconds)
        said = await named(caplog, "WARNING", "was blocked for")
        while not stand_in.ended.is_set():
            await asyncio.sleep(0.01)
    assert "tool look_up of run r1 of session 'ann'" in said
    assert "test_watchdog.py" in said
    assert float(said.split(" was blocked for ")[1].split(" s ")[0]) >= seconds - 0.1
    assert len(stand_in.threads) == 1
    assert threading.get_ident() not in stand_in.threads
    assert not messages(caplog, "ERROR")


async def test_beyond_the_limit_a_blocked_worker_is_given_up(caplog):
    stand_in = StandIn()
    async with asyncio.timeout(20), Watchdog("w1", stand_in, limit=0.2, **QUICK):
        assert stand_in.ended.wait(10) is True  # the loop is blocked by this very wait
        time.sleep(0.1)
    assert [message for message in messages(caplog, "ERROR") if "given up" in message]


async def test_where_nobody_can_stand_in_a_block_is_named_all_the_same(caplog):
    async with asyncio.timeout(20), Watchdog("w1", None, **QUICK):
        while not messages(caplog, "WARNING"):
            time.sleep(0.01)
        await named(caplog, "WARNING", "was blocked for")


async def test_a_stand_in_that_fails_leaves_the_watch_as_it_is(caplog):
    async def failing() -> None:
        raise OSError("no connection")

    async with asyncio.timeout(20), Watchdog("w1", failing, **QUICK):
        while not [message for message in messages(caplog, "WARNING") if "has been blocked" in message]:
            time.sleep(0.01)
        assert "no connection" in await named(caplog, "WARNING", "nobody stands in")
        await named(caplog, "WARNING", "was blocked for")


async def test_a_loop_that_runs_is_left_alone_and_the_thread_ends():
    stand_in = StandIn()
    async with Watchdog("w1", stand_in, beat=0.01, late=30.0, named=60.0):
        assert [thread for thread in threading.enumerate() if thread.name == "watchdog-w1"]
        await asyncio.sleep(0.1)
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog-w1"]
    assert not stand_in.began.is_set()


async def test_a_stand_in_that_swallows_a_cancellation_ends_all_the_same(caplog):
    """As a connection does that is just being made: the worker could never be left."""
    stand_in, swallowed = StandIn(), []

    async def stubborn() -> None:
        while len(swallowed) < 3:
            try:
                await stand_in()
            except asyncio.CancelledError:
                swallowed.append(True)
        await stand_in()

    async with asyncio.timeout(20):
        async with Watchdog("w1", stubborn, **QUICK):
            assert stand_in.began.wait(10) is True
    assert len(swallowed) == 3
