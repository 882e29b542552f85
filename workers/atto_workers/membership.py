"""A set that may say yes to what it does not hold, never no to what it does, in memory of a fixed size."""

from collections.abc import Hashable

BITS = 1 << 23
"""1 MiB. With 100,000 members 1.2 % of the others are taken for members."""


class Membership:
    """One bit a member. `added`: how many were added, some perhaps more than once."""

    def __init__(self) -> None:
        self._bits = bytearray(BITS >> 3)
        self.added = 0

    def add(self, member: Hashable) -> None:
        """From now on it is a member."""
        place = hash(member) % BITS  # of strings: salted by the process, so that nobody can aim
        self._bits[place >> 3] |= 1 << (place & 7)
        self.added += 1

    def __contains__(self, member: Hashable) -> bool:
        place = hash(member) % BITS
        return bool(self._bits[place >> 3] & (1 << (place & 7)))
