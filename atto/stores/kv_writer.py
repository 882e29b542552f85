"""One commit on its way into the bucket: large messages first, older ones out of the head, then the head.
A session that is put is one commit, a large one.

Nothing is visible before the head is written, and that happens at once or not at all. What a failed or
crashed write leaves behind is either taken over by the next one (segments) or named by no head (blobs).
"""

import contextlib
import itertools

from msgspec import Raw
from msgspec.structs import replace

from atto.protocol.errors import AttoError, NotStorable, StoreCorrupt
from atto.protocol.sessions import RunRecord, Snapshot
from atto.stores.encoding import EncodedCommit, decode_state, reading
from atto.stores.kv_bucket import KvBucket, WrongRevision
from atto.stores.kv_layout import (
    SEGMENT_MESSAGES,
    Blob,
    Entry,
    Keys,
    Place,
    array,
    decode_head,
    decode_segment,
    encode,
    is_inline,
    journal_blobs,
    new_blob,
    split,
)

CHUNK_BYTES = 512 << 10
_RECORD_BYTES = 2048
"""More than a usual run's record takes in a head, or all that is in a head besides what is measured."""


class KvWrite:
    """`base` plus `added`, to be written once. `place` is the token of `base`, or where a new session begins.

    `saved`: the snapshot that it makes, if that is not the version after `base`.
    """

    def __init__(
        self,
        bucket: KvBucket,
        keys: Keys,
        base: Snapshot,
        place: Place,
        added: EncodedCommit,
        *,
        segment_bytes: int,
        saved: Snapshot | None = None,
    ) -> None:
        self._bucket = bucket
        self._keys = keys
        self._session = base.session
        self._key = keys.head(base.session)
        self._place = place
        self._added = added
        self._saved = saved or base.after(added.commit)
        self._state = added.applied_to(place.head.state)
        self._continuation = added.continuation or place.head.continuation
        self._segment_bytes = min(segment_bytes, bucket.value_bytes // 8)
        self._blobs: list[Blob] = []
        self._sealed = False

    async def prepare(self) -> Place:
        """Writes all but the head, and returns what the head is to say. Nothing of it is visible yet.

        Raises `WrongRevision` if the session is known to have moved on, `NotStorable`.
        """
        self._check_size()
        entries = tuple(Entry(raw, 1) for raw in self._added.messages)
        if sum(len(entry.raw) for entry in entries) > 2 * self._segment_bytes:
            entries = await self._spill(entries)
        while surplus := self._place.surplus(entries, self._segment_bytes):
            self._place = await self._seal(surplus)
        records = await self._journal()
        return self._place.committed(self._saved, self._state, entries, records, self._continuation)

    async def finish(self, place: Place) -> Snapshot:
        """Writes the head: the commit. Raises `WrongRevision`."""
        dropped = self._dropped_blobs()
        revision = await self._bucket.put(self._key, encode(place.head), revision=place.revision)
        for blob in dropped:
            with contextlib.suppress(AttoError):  # what is left behind goes with the session
                await self._purge(blob)
        return replace(self._saved, state=decode_state(self._state), token=place._replace(revision=revision))

    async def clean_up(self) -> None:
        """After `WrongRevision`: removes what no head will name. Failing at that harms nobody."""
        if not (self._sealed or self._blobs):
            return
        generation = self._place.head.generation
        with contextlib.suppress(AttoError):
            stored = await self._bucket.newest(self._key)
            alive = stored is not None and stored.data and decode_head(stored.data).generation == generation
            if not alive:
                await self._bucket.purge(f"{self._key}.{generation}.>")
            else:
                for blob in self._blobs:
                    await self._purge(blob)

    def _check_size(self) -> None:
        room = self._bucket.value_bytes - 6 * self._segment_bytes  # messages four, journal records two
        is_plain = self._added.continuation is None and not any(map(_is_unusual, self._saved.runs))
        known = len(self._state) + len(self._continuation)
        if is_plain and known + _RECORD_BYTES * (len(self._saved.runs) + 1) <= room:
            return  # as nearly always, without encoding anything
        head = replace(
            self._place.head,
            state=self._state,
            runs=self._saved.runs,
            continuation=self._continuation,
            recent=(),
            records=(),
        )
        room -= len(encode(head))
        if room < 0:
            raise NotStorable(
                f"session {self._session!r}: its state of {len(self._state)} bytes is {-room} bytes larger "
                "than the broker's message size allows. Keep large values elsewhere and a reference in the "
                "state, or raise `max_payload` of the broker"
            )

    async def _journal(self) -> tuple[Raw, ...]:
        """What the head is to say of journal records: together they are small, or become a blob."""
        before = () if self._added.commit.drop_records else self._place.head.records
        if not self._added.records:
            return before
        added = array(self._added.records)
        inline = [raw for raw in before if is_inline(raw)]
        if sum(map(len, inline)) + len(added) <= 2 * self._segment_bytes:
            return (*before, added)
        # Blobs come first: whatever is inline was added after the last of them.
        records = tuple(record for raw in (*inline, added) for record in split(raw))
        blobs = before[: len(before) - len(inline)]
        return (*blobs, Raw(encode(await self._store_apart(records))))

    async def _spill(self, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """The messages become a blob, but for the last ones that fit into a segment."""
        spilled = len(entries) - _tail(entries, self._segment_bytes)
        blob = await self._store_apart(self._added.messages[:spilled])
        return (Entry(Raw(encode(blob)), blob.messages), *entries[spilled:])

    async def _store_apart(self, items: tuple[Raw, ...]) -> Blob:
        """A new blob. It must not be older than the revision that the head will replace: a delete removes
        what is older than its marker, so a new session first marks its key.
        """
        if self._place.revision == 0:
            self._place = self._place._replace(revision=await self._bucket.mark(self._key, revision=0))
        blob, chunks = new_blob(items, min(CHUNK_BYTES, self._bucket.value_bytes))
        self._blobs.append(blob)
        keys = self._keys.chunks(self._session, self._place.head.generation, blob)
        for key, chunk in zip(keys, chunks, strict=True):
            await self._bucket.put(key, chunk, revision=0)
        return blob

    def _dropped_blobs(self) -> list[Blob]:
        if not (self._added.commit.drop_records and self._place.head.records):
            return []
        with reading(self._session):
            return journal_blobs(self._place.head)

    async def _purge(self, blob: Blob) -> None:
        await self._bucket.purge(f"{self._key}.{self._place.head.generation}.{blob.blob}.>")

    async def _seal(self, entries: int) -> Place:
        """The oldest entries, all committed, become the next segment, unless one is there already."""
        place, segment = self._place, self._place.sealing(entries)
        (key,) = self._keys.segments(self._session, place.head.generation, [place.head.segments])
        self._sealed = True
        try:
            await self._bucket.put(key, encode(segment), revision=0)
        except WrongRevision:
            stored = await self._bucket.newest(key)
            if stored is None:
                raise  # deleted together with the session
            with reading(self._session):
                segment = decode_segment(stored.data)
            if segment.start != place.head.sealed:
                raise StoreCorrupt(f"session {self._session!r}: {key} starts at {segment.start}") from None
        sealed = place.sealed_by(segment)
        if sealed is None:
            raise WrongRevision  # it holds messages that were committed after this write's base
        return sealed


def _tail(entries: tuple[Entry, ...], size: int) -> int:
    """How many of the last entries fit into a segment of `size` bytes."""
    ends = itertools.accumulate(len(entry.raw) for entry in reversed(entries))
    return sum(end <= size for end in itertools.islice(ends, SEGMENT_MESSAGES))


def _is_unusual(record: RunRecord) -> bool:
    """Whether a record may be large."""
    return bool(record.absorbed or record.reason or record.input)
