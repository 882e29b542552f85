"""Sessions in a NATS KV bucket: the default store, since the broker is there anyway.

How a session lies in the bucket: `atto.stores.kv_layout`.
"""

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from msgspec.structs import replace

from atto.broker.jetstream import JetStream
from atto.protocol.errors import ConcurrentWrite, InvalidSessionId, StoreCorrupt, StoreError, StoreUnavailable
from atto.protocol.ids import decode_session
from atto.protocol.sessions import RECENT_RUNS, Commit, Snapshot
from atto.stores.encoding import (
    EncodedCommit,
    conflict,
    encode_commit,
    encode_whole,
    is_new,
    is_newest,
    occupied,
    reading,
)
from atto.stores.kv_bucket import KvBucket, WrongRevision
from atto.stores.kv_layout import Keys, Place, beginning, decode_head, encode
from atto.stores.kv_reader import KvReader
from atto.stores.kv_writer import KvWrite

SEGMENT_BYTES = 6 << 10

_ATTEMPTS = 8
_LISTED_AT_ONCE = 100
_A_MOMENT_AGO = datetime.max.replace(tzinfo=UTC)  # later than any cut-off


class NatsKvStore:
    """A `SessionStore` on the bucket `<namespace>-sessions`.

    A save costs one round trip; one or two more if it moves older messages out of the head, or is itself too
    large for it. It writes the commit, the state, and 18 to 24 KiB of recent messages (three to four times
    `segment_bytes`), however long the session is. The state may have almost the broker's `max_payload` (1 MB
    by default); messages, commits and sessions may be larger. `replicas` counts when the bucket is created.

    A save whose reply was lost is looked up once by its run id before it raises `StoreUnavailable`; if other
    commits have followed by then, the snapshot returned is the newest. The key of a deleted session remembers
    for an hour that it was deleted.
    """

    def __init__(
        self,
        jetstream: JetStream,
        namespace: str = "atto",
        *,
        replicas: int = 1,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._keys = Keys(namespace)
        self._bucket = KvBucket(jetstream, self._keys)
        self._reader = KvReader(self._bucket, self._keys)
        self._replicas = replicas
        self._segment_bytes = segment_bytes

    def __repr__(self) -> str:
        return f"NatsKvStore({self._keys.bucket!r})"

    async def declare(self) -> None:
        """Creates the bucket unless it is there; safe to call by many at once.

        Raises `TopologyMismatch` if there is one that cannot serve, `StoreUnavailable`.
        """
        await self._bucket.declare(self._replicas)

    async def load(self, session: str) -> Snapshot | None:
        """As `SessionStore.load`. The head is read from the stream's leader, so it is never a stale one."""
        key = self._keys.head(session)
        stored = await self._bucket.newest(key)
        for _ in range(_ATTEMPTS):
            if stored is None or not stored.data:
                return None
            try:
                return await self._reader.read(session, stored)
            except StoreCorrupt:
                # A delete in the middle of the read takes away what the head named.
                revision, stored = stored.sequence, await self._bucket.newest(key)
                if stored is not None and stored.sequence == revision:
                    raise
        raise StoreUnavailable(f"session {session!r} is deleted and created faster than it can be read")

    async def save(self, base: Snapshot, commit: Commit) -> Snapshot:
        """As `SessionStore.save`. Raises `NotStorable`, with nothing changed, for too large a state."""
        added = encode_commit(commit)
        if is_new(base):
            return await self._create(base, added)
        if not self._is_own(base.token):
            base = await self._reloaded(base)
        return await self._write(base, base.token, added)

    async def fence(self, base: Snapshot) -> Snapshot:
        """As `SessionStore.fence`: the head is written once more, and so has another revision."""
        key = self._keys.head(base.session)
        if is_new(base):
            stored = await self._bucket.newest(key)
            place = beginning(self._keys.bucket, 0 if stored is None else stored.sequence)
            if stored is not None and stored.data:
                raise conflict(base)
        else:
            base = base if self._is_own(base.token) else await self._reloaded(base)
            place = base.token
        try:
            revision = await self._bucket.put(key, encode(place.head), revision=place.revision)
        except WrongRevision:
            raise conflict(base, gone=await self._is_gone(base)) from None
        return replace(base, token=place._replace(revision=revision))

    async def put(self, snapshot: Snapshot) -> Snapshot:
        """As `SessionStore.put`. Raises `NotStorable` for what is no committed session, or too large a state.

        A long history costs a round trip for each half megabyte.
        """
        whole = encode_whole(snapshot)
        saved = replace(snapshot, messages=whole.commit.messages)
        try:
            return await self._create(Snapshot(session=snapshot.session), whole, saved)
        except ConcurrentWrite:
            raise occupied(snapshot.session) from None

    async def delete(self, session: str, *, idle_since: datetime | None = None) -> bool:
        """As `SessionStore.delete`; `idle_since` is compared with the time of the broker.

        If it fails half-way the session is gone, and a second call cleans up. Raises `StoreUnavailable` for a
        session that is committed faster than it can be deleted.
        """
        key = self._keys.head(session)
        for _ in range(_ATTEMPTS):
            last = await self._bucket.last_written(key)
            there = last is not None and not last.deleted
            if idle_since is not None and (last is None or last.deleted or last.at >= idle_since):
                return False
            with contextlib.suppress(WrongRevision):
                revision = await self._bucket.mark(key, revision=0 if last is None else last.revision)
                await self._bucket.purge(f"{key}.>", until=revision)
                return there
        raise StoreUnavailable(f"session {session!r} is committed faster than it can be deleted")

    async def sessions(self, *, after: str = "", idle_since: datetime | None = None) -> AsyncIterator[str]:
        """As `SessionStore.sessions`. What is created or deleted meanwhile may be listed or not."""
        heads = self._sessions_of(await self._bucket.heads())
        names = sorted(session for session in heads if session > after)
        for start in range(0, len(names), _LISTED_AT_ONCE):
            batch = names[start : start + _LISTED_AT_ONCE]
            times = await self._bucket.times(heads[session] for session in batch)
            for session in batch:
                time = times.get(heads[session], _A_MOMENT_AGO)
                if time is not None and (idle_since is None or time < idle_since):
                    yield session

    def _sessions_of(self, heads: list[str]) -> dict[str, str]:
        """The sessions by id, with their heads; keys that are no session's are not ours."""
        sessions: dict[str, str] = {}
        for head in heads:
            with contextlib.suppress(InvalidSessionId):
                sessions[decode_session(self._keys.token(head))] = head
        return sessions

    def _is_own(self, token: object) -> bool:
        return isinstance(token, Place) and token.bucket == self._keys.bucket

    async def _reloaded(self, base: Snapshot) -> Snapshot:
        """The same snapshot with a token: it came from elsewhere, without one."""
        stored = await self.load(base.session)
        if stored is None or not is_newest(base, stored):
            raise conflict(base, gone=stored is None)
        return stored

    async def _create(self, base: Snapshot, added: EncodedCommit, saved: Snapshot | None = None) -> Snapshot:
        """Version 0 says that there is no such session, be it not yet or no more."""
        revision = 0
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(ConcurrentWrite):
                return await self._write(base, beginning(self._keys.bucket, revision), added, saved)
            stored = await self._bucket.newest(self._keys.head(base.session))
            if stored is not None and stored.data:
                break
            revision = 0 if stored is None else stored.sequence
        raise conflict(base)

    async def _write(
        self, base: Snapshot, place: Place, added: EncodedCommit, saved: Snapshot | None = None
    ) -> Snapshot:
        write = KvWrite(
            *(self._bucket, self._keys, base, place, added), segment_bytes=self._segment_bytes, saved=saved
        )
        try:
            prepared = await write.prepare()
            try:
                return await write.finish(prepared)
            except StoreUnavailable as error:
                return await self._looked_up(base, prepared, added, error)
        except WrongRevision:
            await write.clean_up()
            raise conflict(base, gone=await self._is_gone(base)) from None

    async def _is_gone(self, base: Snapshot) -> bool:
        """Whether the session that `base` is of was deleted; there may be another one of its name."""
        if is_new(base):
            return False
        stored = await self._bucket.newest(self._keys.head(base.session))
        if stored is None or not stored.data:
            return True
        with reading(base.session):
            return decode_head(stored.data).generation != base.token.head.generation

    async def _looked_up(
        self, base: Snapshot, place: Place, added: EncodedCommit, error: StoreUnavailable
    ) -> Snapshot:
        """The reply to the head's write was lost: did the commit take effect? `error` if that stays open."""
        try:
            stored = await self.load(base.session)
        except StoreError:
            raise error from None
        if stored is None:
            raise error if base.version == 0 else conflict(base, gone=True)
        if added.commit.ended is None:  # a checkpoint has no record; a single writer's is still the newest
            if stored.token.head == place.head:
                return stored
            raise error if stored.token.revision == place.revision else conflict(base)
        if not added.commit.run_id:  # a put has no run to look for, but a generation of its own
            if stored.token.head.generation == place.head.generation:
                return stored
            raise conflict(base)
        record = stored.record(added.commit.run_id)
        if record is not None and record not in base.runs:
            return stored
        if stored.token.revision == place.revision or stored.version > base.version + RECENT_RUNS:
            raise error  # it may still arrive; or it did, and its record is gone by now
        raise conflict(base)
