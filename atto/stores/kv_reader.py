"""A head, and all that it names, become a snapshot; every count is checked on the way."""

from itertools import chain, islice

from atto.broker.jetstream import Stored
from atto.protocol.errors import StoreCorrupt
from atto.protocol.messages import Message
from atto.protocol.sessions import Record, Snapshot
from atto.stores.encoding import decode_continuation, decode_state, reading
from atto.stores.kv_bucket import KvBucket
from atto.stores.kv_layout import (
    Blob,
    Head,
    Keys,
    Place,
    array,
    decode_head,
    decode_history,
    decode_items,
    decode_journal,
    decode_segment,
    entry_of,
    journal_blobs,
)


class KvReader:
    """Two round trips where there are segments, three where there are blobs, one more where there are large
    journal records, and one for each 4 MiB.

    Raises `StoreCorrupt` if anything is missing, which may also mean that the session was deleted meanwhile.
    """

    def __init__(self, bucket: KvBucket, keys: Keys) -> None:
        self._bucket = bucket
        self._keys = keys

    async def read(self, session: str, stored: Stored) -> Snapshot:
        """The snapshot whose head is `stored`."""
        with reading(session):
            head = decode_head(stored.data)
            recent = tuple(decode_items(array(head.recent)))
            state = decode_state(head.state)
            continuation = decode_continuation(head.continuation)
        sealed = await self._sealed(session, head)
        messages = await self._expanded(session, head, [*sealed, *recent])
        records = await self._records(session, head) if head.records else ()
        place = Place(self._keys.bucket, stored.sequence, head, tuple(map(entry_of, head.recent, recent)))
        end = head.runs[-1].end if head.runs else place.end
        if len(messages) != end:
            raise StoreCorrupt(f"session {session!r} cannot be read: {len(messages)} messages, not {end}")
        return Snapshot(
            session=session,
            version=head.version,
            messages=messages,
            state=state,
            runs=head.runs,
            records=records,
            continuation=continuation,
            token=place,
        )

    async def _sealed(self, session: str, head: Head) -> list[Message | Blob]:
        subjects = self._keys.segments(session, head.generation, range(head.segments))
        items: list[Message | Blob] = []
        position = 0
        for subject, data in zip(subjects, await self._bucket.fetch(subjects), strict=True):
            with reading(session):
                segment = decode_segment(data)
                items += decode_items(segment.messages)
            if segment.start != position:
                raise StoreCorrupt(f"session {session!r}: {subject} starts at message {segment.start}")
            position = segment.end
        if position != head.sealed:
            raise StoreCorrupt(f"session {session!r}: its segments end at {position}, not {head.sealed}")
        return items

    async def _expanded(self, session: str, head: Head, items: list[Message | Blob]) -> tuple[Message, ...]:
        blobs = [item for item in items if isinstance(item, Blob)]
        if not blobs:
            return tuple(item for item in items if isinstance(item, Message))
        chunks = [key for blob in blobs for key in self._keys.chunks(session, head.generation, blob)]
        data = iter(await self._bucket.fetch(chunks))
        with reading(session):
            return tuple(
                chain.from_iterable(
                    decode_history(b"".join(islice(data, item.chunks))) if isinstance(item, Blob) else (item,)
                    for item in items
                )
            )

    async def _records(self, session: str, head: Head) -> tuple[Record, ...]:
        with reading(session):
            blobs = journal_blobs(head)
        chunks = [key for blob in blobs for key in self._keys.chunks(session, head.generation, blob)]
        data = iter(await self._bucket.fetch(chunks))
        with reading(session):
            apart = [decode_journal(b"".join(islice(data, blob.chunks))) for blob in blobs]
            return tuple(chain(*apart, *map(decode_journal, head.records[len(blobs) :])))
