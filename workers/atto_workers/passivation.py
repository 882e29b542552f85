"""The snapshots of idle sessions, kept in memory so that their next turn need not load them."""

import time
import zlib
from collections import OrderedDict
from collections.abc import Callable

import msgspec

from atto.protocol import codec
from atto.protocol.messages import Message
from atto.protocol.sessions import RunRecord, Snapshot
from atto.stores.base import Packable, Packed
from atto_workers.delivery import Claim

IDLE_LIMIT = 15 * 60.0
"""Seconds without a turn after which a session leaves memory."""
MEMORY_LIMIT = 256 << 20
"""Bytes of history, as JSON, that idle sessions may hold in memory together."""
PACK_AFTER = 10.0
"""Seconds without a turn after which a session is packed: as objects, histories take far more memory."""
PACKED_AT_MOST = 256 << 10
"""Bytes of a history, as JSON, beyond which packing and unpacking it would hold up the other sessions."""
_PACKED_AT_ONCE = 20  # sessions, 2 ms

_contents = msgspec.json.Decoder(tuple[tuple[Message, ...], tuple[RunRecord, ...]])


class Resident:
    """A session in memory. `snapshot` is None when the store must be asked."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.snapshot: Snapshot | None = None
        self.size = 0
        self.idle_since = 0.0
        self._weighed = 0
        self._packed: bytes | None = None

    def pack(self) -> None:
        """Until `unpack`, `snapshot` is without its messages and runs, and its token may be packed."""
        snapshot = self.snapshot
        if snapshot is not None and self._packed is None:
            self._packed = zlib.compress(codec.encode((snapshot.messages, snapshot.runs)), 1)
            token = snapshot.token.pack() if isinstance(snapshot.token, Packable) else snapshot.token
            self.snapshot = msgspec.structs.replace(snapshot, messages=(), runs=(), token=token)

    def unpack(self) -> None:
        """The whole snapshot again."""
        if self.snapshot is not None and self._packed is not None:
            messages, runs = _contents.decode(zlib.decompress(self._packed))
            token = self.snapshot.token
            if isinstance(token, Packed):
                token = token.unpack()
            self.snapshot = msgspec.structs.replace(self.snapshot, messages=messages, runs=runs, token=token)
        self._packed = None

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
        self._unpacked: OrderedDict[str, Resident] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, token: str, claim: Claim) -> Resident:
        """The session, for its mailbox to hold; an empty one if it is not here."""
        if token not in self._idle:
            return Resident(claim)
        resident = self._drop(token)
        if resident.claim is not claim:
            return Resident(claim)
        resident.unpack()
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

    def pack(self) -> bool:
        """Packs some of what has been idle for long enough. Whether more of it is left."""
        newest_packed = self._clock() - PACK_AFTER
        for _ in range(_PACKED_AT_ONCE):
            token, resident = next(iter(self._unpacked.items()), ("", None))
            if resident is None or resident.idle_since > newest_packed:
                return False
            del self._unpacked[token]
            resident.pack()
        return True

    def drop(self, claim: Claim) -> None:
        """Drops the sessions of a partition that this worker no longer owns."""
        for token in [token for token, resident in self._idle.items() if resident.claim is claim]:
            self._drop(token)

    def _drop(self, token: str) -> Resident:
        resident = self._idle.pop(token)
        self._unpacked.pop(token, None)
        self._size -= resident.size
        return resident


def _weight(message: Message) -> int:
    return len(codec.encode(message))
