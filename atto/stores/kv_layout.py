"""How a session lies in a NATS KV bucket.

    <session>                              the head: all of the session, but for what follows
    <session>.<generation>.<n>             segment n = 0, 1, 2 …: older messages, which no longer change
    <session>.<generation>.<blob>.<i>      chunk i of a blob: the messages of one large commit or import

`<session>` is the session id encoded for the wire. The head is written with compare-and-set on its
revision, and what it does not name does not exist. `<generation>` is a nonce made when the session is
created, so that nothing of a deleted predecessor is ever taken for its own. Segments follow one another
without a gap and hold committed messages only: whoever finds segment n already there, written by a racing
or crashed writer, takes it over. A blob is named by a nonce, and exists once the head or a segment names it.

Journal records of a run that has not ended are in the head as well, while they are small: one array a
commit, or a blob in the place of several.

All values are JSON (chunks: cut from JSON), so that `nats kv get` shows the newest turns of a session. When
its last commit was is the time at which the broker took the head.
"""

import itertools
import secrets
from collections.abc import Iterable
from typing import NamedTuple, Self

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from atto.protocol.errors import StoreCorrupt
from atto.protocol.ids import encode_session
from atto.protocol.messages import Message
from atto.protocol.sessions import Record, RunRecord, Snapshot
from atto.protocol.subjects import Subjects
from atto.stores.encoding import EMPTY_CONTINUATION, EMPTY_STATE

LAYOUT = 2
"""In each head as `v`: the version of this layout."""

SEGMENT_MESSAGES = 24
"""How many messages make a segment, where they do not fill it: so that small turns cost the same at turn 500
as at turn 50.
"""


class Keys:
    """The subjects of a bucket's keys."""

    def __init__(self, namespace: str) -> None:
        self.bucket = Subjects(namespace).sessions_bucket
        self.stream = f"KV_{self.bucket}"
        self.all = f"$KV.{self.bucket}.>"
        self.heads = f"$KV.{self.bucket}.*"

    def head(self, session: str) -> str:
        """Raises `InvalidSessionId`."""
        return f"$KV.{self.bucket}.{encode_session(session)}"

    def token(self, head: str) -> str:
        """The encoded session of a head's subject."""
        return head.removeprefix(f"$KV.{self.bucket}.")

    def segments(self, session: str, generation: str, numbers: Iterable[int]) -> list[str]:
        """One subject a segment."""
        return [f"{self.head(session)}.{generation}.{number}" for number in numbers]

    def chunks(self, session: str, generation: str, blob: "Blob") -> list[str]:
        """One subject a chunk."""
        return [f"{self.head(session)}.{generation}.{blob.blob}.{number}" for number in range(blob.chunks)]


class Head(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that a session has one of.

    Attributes:
        v: The version of this layout.
        version: The version of the session.
        generation: The life of the session.
        state: Its state.
        segments: How many segments there are.
        sealed: How many messages they hold.
        recent: The messages after those, and blobs in the place of some.
        runs: The last runs that ended.
        records: Journal records: an array for each commit that has some, or a blob in the place of several.
        continuation: Where the next run goes on from.

    """

    v: int
    version: int
    generation: str
    state: Raw
    segments: int = 0
    sealed: int = 0
    recent: tuple[Raw, ...] = ()
    runs: tuple[RunRecord, ...] = ()
    records: tuple[Raw, ...] = ()
    continuation: Raw = EMPTY_CONTINUATION


class Segment(Struct, frozen=True, kw_only=True):
    """The messages `start` to `end` (exclusive) of the history, and blobs in the place of some."""

    start: int
    end: int
    messages: Raw


class Blob(Struct, frozen=True, kw_only=True):
    """Stands for `messages` messages, or journal records, that are stored apart as one JSON array, cut into
    `chunks`.
    """

    blob: str
    chunks: int
    messages: int


class Entry(NamedTuple):
    """A message or a blob: its JSON, and for how many messages it stands."""

    raw: Raw
    messages: int


class Place(NamedTuple):
    """The token of a snapshot: where the next save starts from, encoded, so that it need not be again."""

    bucket: str
    revision: int
    head: Head
    recent: tuple[Entry, ...]

    @property
    def end(self) -> int:
        """How many messages the history has."""
        return self.head.sealed + sum(entry.messages for entry in self.recent)

    def surplus(self, incoming: Iterable[Entry], segment_bytes: int) -> int:
        """How many of the oldest entries to seal before `incoming` ones join.

        With them the head holds four segments' worth at most; three remain. So what a commit writes varies by
        a third between two sealings, and no more.
        """
        recent = [*self.recent, *incoming]
        size, count = sum(len(entry.raw) for entry in recent), len(recent)
        if size <= 4 * segment_bytes and count <= 4 * SEGMENT_MESSAGES:
            return 0
        for sealed, entry in enumerate(self.recent):
            if size <= 3 * segment_bytes and count <= 3 * SEGMENT_MESSAGES:
                return sealed
            size, count = size - len(entry.raw), count - 1
        return len(self.recent)

    def sealing(self, entries: int) -> Segment:
        """The next segment, of the oldest entries."""
        sealed = self.recent[:entries]
        start = self.head.sealed
        return Segment(
            start=start,
            end=start + sum(entry.messages for entry in sealed),
            messages=array(entry.raw for entry in sealed),
        )

    def sealed_by(self, segment: Segment) -> "Place | None":
        """The place with `segment` split off; None if the segment holds messages unknown here."""
        ends = itertools.accumulate((entry.messages for entry in self.recent), initial=segment.start)
        for index, end in enumerate(ends):
            if end == segment.end:
                head = replace(self.head, segments=self.head.segments + 1, sealed=end)
                return self._replace(head=head, recent=self.recent[index:])
        return None

    def committed(
        self, saved: Snapshot, state: Raw, added: Iterable[Entry], records: tuple[Raw, ...], continuation: Raw
    ) -> "Place":
        """The place of `saved`, which `added` lead to; its revision is this one's until it is written."""
        recent = (*self.recent, *added)
        head = replace(
            self.head,
            version=saved.version,
            state=state,
            runs=saved.runs,
            recent=tuple(entry.raw for entry in recent),
            records=records,
            continuation=continuation,
        )
        return self._replace(head=head, recent=recent)

    def pack(self) -> bytes:
        """As `Packable.pack`: the JSON of each message once, in the head."""
        return encode((self.bucket, self.revision, self.head, [entry.messages for entry in self.recent]))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        """As `Packable.unpack`."""
        bucket, revision, head, messages = _packed.decode(data)
        return cls(bucket, revision, head, tuple(map(Entry, head.recent, messages)))


def beginning(bucket: str, revision: int) -> Place:
    """Where a new session starts: on a key without a value, whose last revision (0: none) is `revision`."""
    head = Head(v=LAYOUT, version=0, generation=secrets.token_hex(8), state=EMPTY_STATE)
    return Place(bucket, revision, head, ())


_encoder = msgspec.json.Encoder()
_packed = msgspec.json.Decoder(tuple[str, int, Head, tuple[int, ...]])
_heads = msgspec.json.Decoder(Head)
_segments = msgspec.json.Decoder(Segment)
_blobs = msgspec.json.Decoder(Blob)
_arrays = msgspec.json.Decoder(tuple[Raw, ...])
_journals = msgspec.json.Decoder(tuple[Record, ...])
_histories = msgspec.json.Decoder(tuple[Message, ...])
_messages = msgspec.json.Decoder(Message)

encode = _encoder.encode
decode_segment = _segments.decode
decode_journal = _journals.decode
split = _arrays.decode
decode_history = _histories.decode


def decode_head(data: bytes) -> Head:
    """To be called within `reading`. Raises `StoreCorrupt` for a schema version that is not known here."""
    head = _heads.decode(data)
    if head.v != LAYOUT:
        raise StoreCorrupt(f"the session has layout version {head.v}; this release reads {LAYOUT}")
    return head


def array(items: Iterable[Raw]) -> Raw:
    """A JSON array of what is JSON already."""
    return Raw(b"[" + b",".join(items) + b"]")


def new_blob(messages: tuple[Raw, ...], chunk_bytes: int) -> tuple[Blob, list[bytes]]:
    """The messages of a commit that is too large for the head, and their chunks."""
    data = bytes(array(messages))
    chunks = [data[start : start + chunk_bytes] for start in range(0, len(data), chunk_bytes)]
    return Blob(blob=secrets.token_hex(8), chunks=len(chunks), messages=len(messages)), chunks


def journal_blobs(head: Head) -> list[Blob]:
    """The blobs among its journal records. To be called within `reading`."""
    return [_blobs.decode(raw) for raw in head.records if not is_inline(raw)]


def is_inline(records: Raw) -> bool:
    """Whether journal records are there themselves: an array, where a blob is an object."""
    return memoryview(records)[0] == ord("[")


def decode_items(messages: Raw) -> Iterable[Message | Blob]:
    """A segment's messages, and the blobs among them. To be called within `reading`."""
    try:
        return _histories.decode(messages)
    except msgspec.ValidationError:
        return map(decode_item, _arrays.decode(messages))


def decode_item(raw: Raw) -> Message | Blob:
    """An entry of a head or a segment. To be called within `reading`."""
    try:
        return _blobs.decode(raw)
    except msgspec.ValidationError:
        return _messages.decode(raw)


def entry_of(raw: Raw, item: Message | Blob) -> Entry:
    """What a place remembers of an entry."""
    return Entry(raw, item.messages if isinstance(item, Blob) else 1)
