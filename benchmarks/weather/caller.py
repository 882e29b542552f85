"""The caller's end: turns in flight over distinct sessions, each listened to until its end, and timed."""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from benchmarks.weather import work

Heard = Callable[[str], None]
"""Told of every event as it arrives: the text of a delta, or nothing."""


class Caller(Protocol):
    async def turn(self, session: str, text: str, heard: Heard) -> str:
        """One turn, from its submission to its end: the whole answer."""
        ...


class WrongAnswer(Exception):
    """A turn's deltas, or its answer, are not what the model said."""


class Window(msgspec.Struct):
    """What was done in one stretch of time: `seconds` from the first submission to the last end. In
    milliseconds, for each turn: until it had ended, until its first event, until its first delta.
    """

    seconds: float
    turn_ms: list[float]
    event_ms: list[float]
    delta_ms: list[float]

    @property
    def turns(self) -> int:
        return len(self.turn_ms)


class Load:
    """Turns on one contender, and a ledger of them: how many turns each session has had."""

    def __init__(self, caller: Caller) -> None:
        self.ledger: dict[str, int] = {}
        self._caller = caller

    async def closed_loop(self, concurrency: int, seconds: float, turns: int = work.TURNS) -> Window:
        """As many turns in flight as that for so long; what has begun then is waited for."""
        window = Window(0.0, [], [], [])
        began = time.perf_counter()
        end = began + seconds

        async def caller() -> None:
            while time.perf_counter() < end:
                session = self._new_session()
                for _ in range(turns):
                    await self._turn(session, window)
                    if time.perf_counter() >= end:
                        return

        async with asyncio.TaskGroup() as callers:
            for _ in range(concurrency):
                callers.create_task(caller())
        window.seconds = time.perf_counter() - began
        return window

    async def burst(self, sessions: list[str]) -> Window:
        """One turn of each session, all at once."""
        window = Window(0.0, [], [], [])
        began = time.perf_counter()
        async with asyncio.TaskGroup() as callers:
            for session in sessions:
                callers.create_task(self._turn(session, window))
        window.seconds = time.perf_counter() - began
        return window

    async def sequence(self, session: str, turns: int) -> Window:
        """Turn after turn of one session."""
        window = Window(0.0, [], [], [])
        began = time.perf_counter()
        for _ in range(turns):
            await self._turn(session, window)
        window.seconds = time.perf_counter() - began
        return window

    def new_sessions(self, count: int) -> list[str]:
        return [self._new_session() for _ in range(count)]

    async def fill(self, sessions: int, turns: int, concurrency: int) -> Window:
        """So many new sessions with so many turns each."""
        window = Window(0.0, [], [], [])
        left = iter(range(sessions))
        began = time.perf_counter()

        async def caller() -> None:
            for _ in left:
                session = self._new_session()
                for _ in range(turns):
                    await self._turn(session, window)

        async with asyncio.TaskGroup() as callers:
            for _ in range(concurrency):
                callers.create_task(caller())
        window.seconds = time.perf_counter() - began
        return window

    def _new_session(self) -> str:
        session = f"s{secrets.token_hex(6)}"
        self.ledger[session] = 0
        return session

    async def _turn(self, session: str, window: Window) -> None:
        turn = self.ledger[session] + 1
        said: list[str] = []
        first_event = first_delta = 0.0

        def heard(text: str) -> None:
            nonlocal first_event, first_delta
            if not first_event:
                first_event = time.perf_counter()
            if text:
                if not first_delta:
                    first_delta = time.perf_counter()
                said.append(text)

        began = time.perf_counter()
        answer = await self._caller.turn(session, work.question(session, turn), heard)
        ended = time.perf_counter()
        if answer != work.answer(session, turn) or tuple(said) != work.deltas(session, turn):
            raise WrongAnswer(f"turn {turn} of {session}: {answer!r}, said as {said!r}")
        self.ledger[session] = turn
        window.turn_ms.append(1000 * (ended - began))
        window.event_ms.append(1000 * (first_event - began))
        window.delta_ms.append(1000 * (first_delta - began))
