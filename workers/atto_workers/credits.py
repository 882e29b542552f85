"""How many turns a worker may hold, running or queued, and how many bytes of them."""

TURNS = 4_096
"""Turns that a worker holds at most, beyond those that run: so many sessions can share its slots fairly."""
BYTES = 64 << 20
"""Bytes of turns that a worker holds at most. What is decoded of them takes as much again."""
LARGEST_PULL = 64
"""Turns that one pull asks for at most."""

_HEADROOM = 8 << 10  # of a message, beside its payload: its subject and reply


class Credits:
    """`turns` and `bytes` may be held; `largest`: bytes of the largest turn that the broker takes.

    They are spent once either is reached. Pulls that are out may still be filled, two a partition at most, so
    what is held never exceeds `most(partitions)`.
    """

    def __init__(self, turns: int, size: int, *, largest: int) -> None:
        self.turns = turns
        self.size = size
        self.held_turns = 0
        self.held_size = 0
        self._largest = largest + _HEADROOM

    @property
    def is_spent(self) -> bool:
        """Whether no more may be asked for now."""
        return self.held_turns >= self.turns or self.held_size >= self.size

    def take(self, size: int) -> None:
        """A turn is held."""
        self.held_turns += 1
        self.held_size += size

    def give_back(self, size: int) -> None:
        """It is not any more."""
        self.held_turns -= 1
        self.held_size -= size

    def allowance(self, partitions: int) -> int:
        """Turns of one partition that may be on their way, at least one."""
        return max(1, min(LARGEST_PULL, self.turns // max(1, partitions)))

    def bytes_of_pull(self, partitions: int) -> int:
        """Bytes that one pull may bring: its share, and the largest turn in any case."""
        return max(self._largest, self.size // (2 * max(1, partitions)))

    def most(self, partitions: int) -> tuple[int, int]:
        """Turns and bytes that are held at most."""
        turns = self.turns + 2 * partitions * self.allowance(partitions)
        return turns, self.size + 2 * partitions * self.bytes_of_pull(partitions)
