"""How much was used in the last minute."""

from collections import deque

WINDOW = 60.0
"""Seconds."""

TOLERANCE = 1e-6
"""Seconds by which floating-point arithmetic may be off."""


class Entry:
    """One use; its `amount` may be corrected later, by `Window.correct`."""

    __slots__ = ("amount", "time")

    def __init__(self, time: float, amount: int) -> None:
        self.time = time
        self.amount = amount


class Window:
    """A sliding window: in no 60 seconds is more than `limit` used, whatever way the provider counts.

    Only a single use above the limit is let through, alone; it would wait for ever otherwise.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: deque[Entry] = deque()
        self._used = 0

    def wait(self, now: float, amount: int) -> float:
        """Seconds until `amount` fits; 0: now."""
        self._forget(now)
        surplus = self._used + min(amount, self._limit) - self._limit
        if surplus <= 0:
            return 0.0
        for entry in self._entries:
            surplus -= entry.amount
            if surplus <= 0:
                return entry.time + WINDOW - now
        raise AssertionError("an empty window has room")

    def use(self, now: float, amount: int) -> Entry:
        """Counts it, whether it fits or not."""
        entry = Entry(now, amount)
        self._entries.append(entry)
        self._used += amount
        return entry

    def correct(self, entry: Entry, amount: int, now: float) -> None:
        """What the use came to after all; of no effect once it has left the window."""
        self._forget(now)
        if self._entries and entry.time >= self._entries[0].time:
            self._used += amount - entry.amount
            entry.amount = amount

    def _forget(self, now: float) -> None:
        newest_gone = now - WINDOW + TOLERANCE
        while self._entries and self._entries[0].time <= newest_gone:
            self._used -= self._entries.popleft().amount
