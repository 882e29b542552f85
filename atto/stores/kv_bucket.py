"""The bucket as the KV store uses it: raw JetStream requests, and errors in the store's own words.

nats-py's KV layer is not used: it mishandles delete markers and drops time-outs of keys on update.
"""

import contextlib
import logging
from collections.abc import Awaitable, Iterable
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import msgspec

from atto.broker.jetstream import JetStream, Stored
from atto.broker.listing import listed
from atto.broker.refusals import MESSAGE_TOO_LARGE, NO_MESSAGE, STREAM_NOT_FOUND, WRONG_LAST_SEQUENCE
from atto.protocol.errors import (
    AttoError,
    BrokerRefused,
    BrokerUnavailable,
    NoResponders,
    NotStorable,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
    TopologyMismatch,
    TopologyMissing,
)
from atto.stores.kv_layout import Keys

_log = logging.getLogger("atto.store")

HEADERS_BYTES = 1024
"""What the headers of a write take at most of the broker's payload limit, generously."""

MARKER_SECONDS = 3600
"""How long the key of a deleted session remembers that it was deleted: longer than a write may still be
on its way, held back by a client without a connection. Then the last trace is gone.
"""

_EXPECTED = "Nats-Expected-Last-Subject-Sequence"
_MARKER = {"KV-Operation": "DEL", "Nats-TTL": f"{MARKER_SECONDS}s"}
_SUBJECTS_PER_READ = 1000  # the server reads up to 1,024 subjects at once

# JetStream's error codes (server/errors.json of nats-server).
_WRONG_LAST_SEQUENCE = {WRONG_LAST_SEQUENCE, 10164}  # the second: against a write in flight, in a cluster
_UNAVAILABLE = 503

# What reading and writing relies on; anything else is the operator's to tune.
_ESSENTIAL = {"max_msgs_per_subject": 1, "allow_direct": True, "allow_msg_ttl": True, "deny_purge": False}

_T = TypeVar("_T")


class WrongRevision(Exception):
    """The key is not at the expected revision; nothing was written."""


class Written(NamedTuple):
    """A key's last revision. `deleted`: it has no value."""

    revision: int
    at: datetime
    deleted: bool


class _Message(msgspec.Struct):
    seq: int
    time: datetime
    data: str = ""


class _LastMessage(msgspec.Struct):
    message: _Message


class _SubjectCounts(msgspec.Struct):
    subjects: dict[str, int] | None = None


class _Page(msgspec.Struct):
    state: _SubjectCounts
    total: int = 0


class _Info(msgspec.Struct):
    config: dict[str, Any]


_last_messages = msgspec.json.Decoder(_LastMessage)
_pages = msgspec.json.Decoder(_Page)
_infos = msgspec.json.Decoder(_Info)


class KvBucket:
    """Every method raises `TopologyMissing` if there is no such bucket, `StoreUnavailable` if the broker does
    not answer in time (what was asked may or may not happen), and `StoreError` if it refuses.
    """

    def __init__(self, jetstream: JetStream, keys: Keys) -> None:
        self._jetstream = jetstream
        self._keys = keys
        self._is_there = self._was_deleted = False

    @property
    def value_bytes(self) -> int:
        """How large a value may be."""
        return self._jetstream.connection.max_payload - HEADERS_BYTES

    async def declare(self, replicas: int) -> None:
        """Creates the bucket unless it is there. Raises `TopologyMismatch` if it cannot serve."""
        config = await self._config() or await self._create(replicas)
        for key, value in _ESSENTIAL.items():
            if (found := config.get(key, False)) != value:
                raise TopologyMismatch(
                    f"stream {self._keys.stream!r} exists with {key} = {found}, sessions need {value}: "
                    "update the stream, or use another namespace"
                )

    async def newest(self, subject: str) -> Stored | None:
        """The key's last message, from the stream's leader; without data it marks a deleted key."""
        return await self._ask(self._jetstream.last(self._keys.stream, subject))

    async def last_written(self, subject: str) -> Written | None:
        """The key's last revision, from the stream's leader, with the time at which the broker took it."""
        return await self._ask(self._last_written(subject))

    async def fetch(self, subjects: list[str]) -> list[bytes]:
        """The values of keys that never change, in order. Raises `StoreCorrupt` if one is missing."""
        found: dict[str, bytes] = {}
        for start in range(0, len(subjects), _SUBJECTS_PER_READ):
            batch = subjects[start : start + _SUBJECTS_PER_READ]
            stored = await self._ask(self._jetstream.read_last(self._keys.stream, batch))
            found.update((message.subject, message.data) for message in stored)
        return [found[subject] if subject in found else await self._lagging(subject) for subject in subjects]

    async def _lagging(self, subject: str) -> bytes:
        """A value that the replica which answered does not have yet."""
        stored = await self.newest(subject)
        if stored is None:
            raise StoreCorrupt(f"key {self._keys.token(subject)} of bucket {self._keys.bucket!r} is missing")
        return stored.data

    async def put(self, subject: str, data: bytes, *, revision: int) -> int:
        """Writes if the key's last revision is `revision` (0: none), and returns the new one.

        Raises `WrongRevision`, and `NotStorable` for what exceeds the broker's limit.
        """
        return await self._publish(subject, data, {_EXPECTED: str(revision)})

    async def mark(self, subject: str, *, revision: int | None = None) -> int:
        """Makes the key one without a value, and returns the revision. Raises `WrongRevision`."""
        expected = {} if revision is None else {_EXPECTED: str(revision)}
        return await self._publish(subject, b"", {**_MARKER, **expected})

    async def purge(self, subjects: str, *, until: int | None = None) -> None:
        """Removes all messages of the subjects; with `until`, those up to this revision only."""
        request: dict[str, Any] = {"filter": subjects}
        if until is not None:
            request["seq"] = until + 1
        await self._api(f"STREAM.PURGE.{self._keys.stream}", request)

    async def heads(self) -> list[str]:
        """The subjects of all heads, as the leader knows them; among them those of deleted sessions."""

        async def read(offset: int) -> tuple[list[str], int]:
            request = {"subjects_filter": self._keys.heads, "offset": offset}
            page = _pages.decode(await self._api(f"STREAM.INFO.{self._keys.stream}", request))
            return sorted(page.state.subjects or {}), page.total

        return await listed(read, name=str)

    async def times(self, subjects: Iterable[str]) -> dict[str, datetime | None]:
        """When the broker took the value of each key; None for one without a value.

        A key that was written a moment ago may be missing: any replica may answer.
        """
        stored = await self._ask(self._jetstream.read_last(self._keys.stream, subjects))
        return {message.subject: _time(message) if message.data else None for message in stored}

    async def _last_written(self, subject: str) -> Written | None:
        try:
            reply = await self._jetstream.api(
                f"STREAM.MSG.GET.{self._keys.stream}", {"last_by_subj": subject}
            )
        except BrokerRefused as error:
            if error.err_code == NO_MESSAGE:
                return None
            raise
        message = _last_messages.decode(reply).message
        return Written(message.seq, message.time, deleted=not message.data)

    async def _config(self) -> dict[str, Any] | None:
        with contextlib.suppress(TopologyMissing):
            return _infos.decode(await self._api(f"STREAM.INFO.{self._keys.stream}")).config
        return None

    async def _create(self, replicas: int) -> dict[str, Any]:
        wanted = _stream_config(self._keys, replicas)
        try:
            await self._api(f"STREAM.CREATE.{self._keys.stream}", wanted)
        except StoreError:
            if config := await self._config():
                return config  # another one was faster, with other settings
            raise
        return wanted

    async def _publish(self, subject: str, data: bytes, headers: dict[str, str]) -> int:
        if len(data) > self.value_bytes:
            raise NotStorable(f"{len(data)} bytes are more than the broker takes: {self.value_bytes}")
        return (await self._ask(self._jetstream.publish(subject, data, headers=headers))).sequence

    async def _api(self, name: str, request: Any = None) -> bytes:
        return await self._ask(self._jetstream.api(name, request))

    async def _ask(self, call: Awaitable[_T]) -> _T:
        try:
            answer = await call
        except NoResponders as error:
            raise await self._explained(error) from error
        except BrokerUnavailable as error:
            raise StoreUnavailable(f"bucket {self._keys.bucket!r}: {error}") from error
        except BrokerRefused as error:
            if error.err_code in _WRONG_LAST_SEQUENCE:
                raise WrongRevision from error
            raise self._translated(error) from error
        if not self._is_there:
            self._found()
        return answer

    def _found(self) -> None:
        self._is_there = True
        if self._was_deleted:
            self._was_deleted = False
            _log.warning("the sessions bucket %r is there again", self._keys.bucket)

    def _missing(self) -> TopologyMissing:
        """Told once in the log where the bucket was there before, since then whoever uses it waits."""
        bucket, mend = self._keys.bucket, "`atto declare` makes it again, empty"
        if self._is_there:
            self._is_there, self._was_deleted = False, True
            _log.error("the sessions bucket %r was deleted: turns wait; %s", bucket, mend)
        if self._was_deleted:
            return TopologyMissing(f"the sessions bucket {bucket!r} was deleted: {mend}")
        return TopologyMissing(
            f"there is no sessions bucket {bucket!r}: `atto declare` makes it, or the start of a worker"
        )

    async def _explained(self, error: NoResponders) -> AttoError:
        """Nobody listens: there is no such bucket, or its replicas elect a leader."""
        try:
            await self._jetstream.api(f"STREAM.INFO.{self._keys.stream}")
        except BrokerRefused as refused:
            return self._translated(refused)
        except BrokerUnavailable:
            pass
        return StoreUnavailable(f"bucket {self._keys.bucket!r}: {error}")

    def _translated(self, error: BrokerRefused) -> AttoError:
        bucket = self._keys.bucket
        if error.err_code == STREAM_NOT_FOUND:
            return self._missing()
        if error.err_code == MESSAGE_TOO_LARGE:
            return NotStorable(f"bucket {bucket!r}: {error}")
        if error.status == _UNAVAILABLE:
            return StoreUnavailable(f"bucket {bucket!r}: {error}")
        return StoreError(f"bucket {bucket!r}: {error}")


def _time(message: Stored) -> datetime:
    """A direct read's messages carry it in a header."""
    return msgspec.convert(message.headers["Nats-Time-Stamp"], datetime)


def _stream_config(keys: Keys, replicas: int) -> dict[str, Any]:
    return {
        "name": keys.stream,
        "subjects": [keys.all],
        "description": "sessions of atto",
        "retention": "limits",
        "storage": "file",
        "num_replicas": replicas,
        "max_msgs_per_subject": 1,
        "discard": "new",
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "allow_msg_ttl": True,
        "deny_delete": True,
        "deny_purge": False,
    }
