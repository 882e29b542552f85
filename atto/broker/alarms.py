"""Deadlines that hardly ever come: many of them on one timer of the event loop."""

import asyncio
import math
from typing import Protocol

GRAIN = 0.01
"""Seconds by which an alarm may ring late, for each thousand of them that are set, so that many that are due
one after another cost one look at them all.
"""
_EARLY = 1e-3
"""Seconds by which an event loop's timer may go off too early."""


class Alarm(Protocol):
    """Something that is due, in the event loop's time. `due` may be put off at any time, without a word."""

    due: float

    def ring(self) -> None:
        """The time has come; the alarm is cleared. Must not raise."""
        ...


class Alarms:
    """For time-outs: a timer of its own for each would cost a request a fifth of its CPU (measured, uvloop).

    To be used in one event loop.
    """

    def __init__(self) -> None:
        self._alarms: set[Alarm] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf

    def set(self, alarm: Alarm) -> None:
        """`alarm` rings once it is due; also to be called when that is earlier than it was."""
        self._alarms.add(alarm)
        if alarm.due < self._rings_at:
            self._arm(alarm.due)

    def clear(self, alarm: Alarm) -> None:
        """It does not ring any more, if it is set at all."""
        self._alarms.discard(alarm)
        if not self._alarms and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._rings_at = math.inf

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._rings_at = math.inf
        now = asyncio.get_running_loop().time()
        for alarm in [alarm for alarm in self._alarms if alarm.due <= now + _EARLY]:
            self._alarms.discard(alarm)
            alarm.ring()
        if self._alarms:
            grain = GRAIN * max(1.0, len(self._alarms) / 1000)
            self._arm(max(min(alarm.due for alarm in self._alarms), now + grain))
