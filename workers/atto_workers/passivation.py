"""The snapshots of idle sessions, kept in memory so that their next turn need not load them."""

import time
from collections import OrderedDict
from collections.abc import Callable

from atto.protocol import codec
from atto.protocol.messages import Message
from atto.protocol.sessions import Snapshot
from atto_workers.delivery import Claim

IDLE_LIMIT = 15 * 60.0
"""Seconds without a turn after which a session leaves memory."""
MEMORY_LIMIT = 256 << 20
"""Bytes of history, as JSON, that idle sessions may hold in memory together."""


class Resident:
    """A session in memory. `snapshot` is None when the store must be asked."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.snapshot: Snapshot | None = None
        self.size = 0
        self.idle_since = 0.0
        self._weighed = 0

    def weigh(self) -> int:
        """Bytes of history; only what was added since the last time is counted anew."""
        messages = self.snapshot.messages if self.snapshot is not None else ()
        if len(messages) < self._weighed:  # the session was deleted and begun again
            self.size = self._weighed = 0
        self.size += sum(map(_weight, messages[self._weighed :]))
        self._weighed = len(messages)
        return self.size


class IdleSessions:
    """Least recently used first out. A session with a turn in flight or queued is not here, so never dropped.

    `clock` gives seconds.
    """

    def __init__(
        self,
        *,
        idle_limit: float = IDLE_LIMIT,
        memory_limit: int = MEMORY_LIMIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._idle_limit = idle_limit
        self._memory_limit = memory_limit
        self._clock = clock
        self._idle: OrderedDict[str, Resident] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, token: str, claim: Claim) -> Resident:
        """The session, for its mailbox to hold; an empty one if it is not here."""
        resident = self._idle.pop(token, None)
        if resident is None:
            return Resident(claim)
        self._size -= resident.size
        return resident if resident.claim is claim else Resident(claim)

    def put(self, token: str, resident: Resident) -> None:
        """The session has become idle."""
        if resident.snapshot is None or not resident.claim.is_open:
            return
        resident.idle_since = self._clock()
        self._idle[token] = resident
        self._size += resident.weigh()
        while self._size > self._memory_limit:
            self._drop(next(iter(self._idle)))

    def sweep(self) -> None:
        """Drops what has been idle for too long."""
        newest_dropped = self._clock() - self._idle_limit
        while self._idle:
            token, resident = next(iter(self._idle.items()))
            if resident.idle_since > newest_dropped:
                return
            self._drop(token)

    def drop(self, claim: Claim) -> None:
        """Drops the sessions of a partition that this worker no longer owns."""
        for token in [token for token, resident in self._idle.items() if resident.claim is claim]:
            self._drop(token)

    def _drop(self, token: str) -> None:
        self._size -= self._idle.pop(token).size


def _weight(message: Message) -> int:
    return len(codec.encode(message))
