"""The snapshots of idle sessions, kept in memory so that their next turn need not load them."""

import logging
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from atto.aio.user_code import UserCode, describe
from atto.protocol import codec
from atto.protocol.messages import Message
from atto.protocol.sessions import Snapshot
from atto.stores.base import Packable
from atto_workers import heap
from atto_workers.delivery import Claim

IDLE_LIMIT = 15 * 60.0
"""Seconds without a turn after which a session leaves memory."""
MEMORY_LIMIT = 256 << 20
"""Bytes of history, as JSON, that idle sessions may hold in memory together."""
PACK_AFTER = 10.0
"""Seconds without a turn after which a session is packed: as objects, histories take far more memory."""
UNPACKED_LIMIT = 8 << 20
"""Bytes of history, as JSON, that unpacked sessions may hold; beyond, they are packed before their time.

Python hardly gives memory back that objects have had, so their peak is what a worker keeps for good.
"""
PACKED_AT_MOST = 256 << 10
"""Bytes of a history, as JSON, beyond which packing and unpacking it would hold up the other sessions."""
_PACKED_AT_ONCE = 64 << 10  # bytes of history, as JSON: 2 ms
_DROPPED_AT_ONCE = 50  # sessions: 2 ms, if they are not packed
_TRIMMED_AT_ONCE = 8 << 20  # bytes that dropped sessions had: 2 ms

_log = logging.getLogger("atto.worker")
_snapshots = msgspec.json.Decoder(Snapshot)


class Resident:
    """A session in memory. `snapshot` is None when the store must be asked."""

    # Ten thousand of them wait for their sessions' next turn.
    __slots__ = ("_packed", "_token", "_weighed", "claim", "idle_since", "size", "snapshot")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.snapshot: Snapshot | None = None
        self.size = 0
        self.idle_since = 0.0
        self._weighed = 0
        self._packed: bytes | None = None
        self._token: Any = None  # of a packed snapshot: its class, or where it cannot be packed the token

    @property
    def is_packed(self) -> bool:
        """Whether `unpack` has something to do."""
        return self._packed is not None

    @property
    def held(self) -> int:
        """Bytes that are free once the session is dropped, or about as many."""
        return self.size if self._packed is None else len(self._packed)

    def pack(self) -> None:
        """Makes one `bytes` of the snapshot and the store's token."""
        if self.snapshot is None:
            return
        token = self.snapshot.token
        data = codec.encode(replace(self.snapshot, token=None))
        if isinstance(token, Packable):
            data, token = b"%b\n%b" % (data, token.pack()), type(token)  # JSON has no bare newline
        self._packed, self._token, self.snapshot = zlib.compress(data, 1), token, None

    def unpack(self) -> None:
        """The snapshot again, if it was packed."""
        if self._packed is None:
            return
        snapshot, newline, token = zlib.decompress(self._packed).partition(b"\n")
        self.snapshot = replace(
            _snapshots.decode(snapshot), token=self._token.unpack(token) if newline else self._token
        )
        self._packed = self._token = None

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

    What has been here for a while is packed, once `pack` is called. `clock` gives seconds.
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
        self._unpacked: OrderedDict[str, Resident] = OrderedDict()
        self._unpacked_size = 0
        self._untrimmed = 0

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, token: str, claim: Claim) -> Resident:
        """The session, for its mailbox to hold; an empty one if it is not here."""
        if token not in self._idle:
            return Resident(claim)
        resident = self._remove(token)
        if resident.claim is not claim:
            return Resident(claim)
        if not resident.is_packed:
            return resident
        try:
            with UserCode("store", "token"):
                resident.unpack()
        except Exception as error:  # noqa: BLE001 - a user's own store may raise anything
            _log.warning("session %s cannot be unpacked, and is loaded again: %s", token, describe(error))
            return Resident(claim)
        return resident

    def put(self, token: str, resident: Resident) -> None:
        """The session has become idle."""
        if resident.snapshot is None or not resident.claim.is_open:
            return
        resident.idle_since = self._clock()
        self._idle[token] = resident
        self._size += resident.weigh()
        if resident.size <= PACKED_AT_MOST:
            self._unpacked[token] = resident
            self._unpacked_size += resident.size
        while self._unpacked_size > UNPACKED_LIMIT:
            self._pack(next(iter(self._unpacked)))
        while self._size > self._memory_limit:
            self._drop(next(iter(self._idle)))

    def sweep(self) -> bool:
        """Drops some of what has been idle for too long. Whether more of it is left."""
        newest_dropped = self._clock() - self._idle_limit
        if self._untrimmed > _TRIMMED_AT_ONCE:
            self._untrimmed = 0
            heap.trim()
        for _ in range(_DROPPED_AT_ONCE):
            token, resident = next(iter(self._idle.items()), ("", None))
            if resident is None or resident.idle_since > newest_dropped:
                return False
            self._drop(token)
        return True

    def pack(self) -> bool:
        """Packs some of what has been idle for long enough. Whether more of it is left."""
        newest_packed = self._clock() - PACK_AFTER
        packed = 0
        while packed < _PACKED_AT_ONCE:
            token, resident = next(iter(self._unpacked.items()), ("", None))
            if resident is None or resident.idle_since > newest_packed:
                return False
            packed += resident.size
            self._pack(token)
        return True

    def drop(self, claim: Claim) -> None:
        """Drops the sessions of a partition that this worker no longer owns."""
        for token in [token for token, resident in self._idle.items() if resident.claim is claim]:
            self._drop(token)

    def _drop(self, token: str) -> None:
        self._untrimmed += self._remove(token).held

    def _remove(self, token: str) -> Resident:
        resident = self._idle.pop(token)
        self._size -= resident.size
        self._leave_unpacked(token)
        return resident

    def _pack(self, token: str) -> None:
        resident = self._unpacked[token]
        self._leave_unpacked(token)
        try:
            with UserCode("store", "token"):
                resident.pack()
        except Exception as error:  # noqa: BLE001 - a user's own store may raise anything
            _log.warning("session %s cannot be packed, and leaves memory: %s", token, describe(error))
            self._drop(token)

    def _leave_unpacked(self, token: str) -> None:
        resident = self._unpacked.pop(token, None)
        if resident is not None:
            self._unpacked_size -= resident.size


def _weight(message: Message) -> int:
    return len(codec.encode(message))
