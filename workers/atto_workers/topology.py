"""What a namespace is made of on the broker: streams and buckets, declared idempotently."""

from typing import Any, NamedTuple

import msgspec

from atto.broker.jetstream import JetStream
from atto.broker.refusals import STREAM_NOT_FOUND
from atto.broker.requests import TIMEOUT
from atto.protocol.errors import BrokerRefused, BrokerUnavailable, NoResponders, TopologyMismatch
from atto.protocol.subjects import Subjects
from atto_workers.run.keeping import KEPT_KEY, RECORDS_MAX_AGE, Kept
from atto_workers.storage import explained

PARTITIONS = 64
BACKLOG = 32
DUPLICATE_WINDOW = 120
"""Seconds for which the broker remembers a turn's id, so that a repeated submit is no second turn."""
# The broker sets the bytes of all bounds aside when it makes the streams: together 480 MiB, so that a
# namespace fits a laptop and a small volume.
TURNS_MAX_BYTES = 128 << 20
"""Bytes of turns that have not ended; the broker refuses more."""
CANCELS_MAX_BYTES = 24 << 20
"""Bytes of cancellations; the broker refuses more, and drops none before its time."""
CANCELS_MAX_MSGS = 100_000
CANCEL_MAX_BYTES = 8 << 10
"""Bytes of one cancellation: its reason is cut to 1,024."""
DEAD_MAX_BYTES = 64 << 20
"""Bytes of dead letters; beyond them the oldest go first."""
DEAD_MAX_AGE = 30 * 24 * 3600
"""Seconds for which dead letters are kept."""
MEMBERS_MAX_BYTES = 8 << 20
EVENTS_MAX_AGE = RECORDS_MAX_AGE
"""Seconds for which a run can be replayed, resumed after a crash, and cancelled before it starts."""
EVENTS_MAX_BYTES = 256 << 20
"""Bytes of events; the broker refuses more, and runs wait until some have expired."""

_SECOND = 1_000_000_000
PARTITIONS_KEY = "atto-partitions"
BOUNDS_KEY = "atto-bounds"
"""In the metadata of a stream whose bounds were decided, be it for none."""
_UNBOUNDED = {"max_bytes": -1, "max_age": 0, "max_msg_size": -1}
MINIMUM_SERVER = (2, 11)
_NAME_IN_USE = 10058
_CONSUMERS_BY_DEFAULT = 900
_MORE_CONSUMERS = 100  # such as people make to look at the stream


class BrokerUnfit(BrokerUnavailable):
    """The broker is there, and will not do however long one waits."""


class Declared(NamedTuple):
    """What the broker says is in force.

    `events_max_age`: seconds for which a run's records are kept, None for ever. `events_kept`: likewise by
    kind; None in a namespace of an older version, where messages do not say for how long they are kept.
    """

    partitions: int
    backlog: int
    replicas: int
    events_max_age: float | None = None
    events_kept: Kept | None = None


class _State(msgspec.Struct):
    last_seq: int = 0
    bytes: int = 0


class StreamInfo(msgspec.Struct):
    """A stream's configuration, as the broker's JSON, and its last sequence."""

    config: dict[str, Any]
    state: _State


_infos = msgspec.json.Decoder(StreamInfo)


async def stream_info(
    jetstream: JetStream,
    stream: str,
    *,
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - the time-out of one round trip
) -> StreamInfo | None:
    """None if there is no such stream."""
    try:
        return _infos.decode(await jetstream.api(f"STREAM.INFO.{stream}", timeout=timeout))
    except BrokerRefused as error:
        if error.err_code == STREAM_NOT_FOUND:
            return None
        raise


class Topology:
    """The streams and buckets of a namespace.

    Every setting left at None keeps what the namespace has, or takes the default when it is declared for the
    first time; one that is given is enforced. `partitions` (default 64) is fixed for the namespace's life.
    `backlog` (32): unfinished turns a session may have. `max_turns` (no limit): unfinished turns of all
    sessions. `replicas` (1): copies of each stream in a cluster, and of the sessions' bucket, if there is
    one. `events_max_age` (24 hours): seconds for which a run's records are kept, so that it can be replayed
    and resumed; `deltas_max_age` (10 minutes): likewise messages of nothing but deltas, which records repeat.
    `events_max_bytes` (256 MiB): what the broker keeps of events; 0 for no bound; more is refused, and runs
    wait. `turns_max_bytes` (128 MiB),
    `cancels_max_bytes` (24 MiB), `dead_max_bytes` (64 MiB): what the broker keeps of unfinished turns, of
    cancellations and of dead letters; 0 for no bound. Of turns and cancellations more is refused, of dead
    letters the oldest go first. `dead_max_age` (30 days): seconds for which those are kept; 0 for ever.
    """

    def __init__(
        self,
        namespace: str = "atto",
        *,
        partitions: int | None = None,
        backlog: int | None = None,
        max_turns: int | None = None,
        replicas: int | None = None,
        events_max_age: float | None = None,
        deltas_max_age: float | None = None,
        events_max_bytes: int | None = None,
        turns_max_bytes: int | None = None,
        cancels_max_bytes: int | None = None,
        dead_max_bytes: int | None = None,
        dead_max_age: float | None = None,
    ) -> None:
        for name, value in (("partitions", partitions), ("backlog", backlog), ("replicas", replicas)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if max_turns is not None and max_turns < 0:
            raise ValueError(f"max_turns must be at least 0 (no bound), not {max_turns}")
        for name, value in (
            ("events_max_bytes", events_max_bytes),
            ("turns_max_bytes", turns_max_bytes),
            ("cancels_max_bytes", cancels_max_bytes),
            ("dead_max_bytes", dead_max_bytes),
            ("dead_max_age", dead_max_age),
        ):
            if value is not None and value < 0:
                raise ValueError(f"{name} must be at least 0 (no bound), not {value}")
        self.subjects = Subjects(namespace)
        self._partitions = partitions
        self._turns: dict[str, Any] = {
            "max_msgs_per_subject": backlog,
            "max_msgs": max_turns,
            "max_bytes": _or_none(turns_max_bytes),
        }
        self._cancels: dict[str, Any] = {"max_bytes": _or_none(cancels_max_bytes)}
        self._dead: dict[str, Any] = {
            "max_bytes": _or_none(dead_max_bytes),
            "max_age": None if dead_max_age is None else int(dead_max_age * _SECOND),
        }
        self._events: dict[str, Any] = {"max_bytes": _or_none(events_max_bytes)}
        self._records_max_age = events_max_age
        self._deltas_max_age = deltas_max_age
        self._replicas = replicas

    async def declare(self, jetstream: JetStream, *, renew: bool = False) -> Declared:
        """Creates what is missing; safe to call again, and by many at once.

        `renew`: gives streams of an older version, which had no bounds, those that new ones have; workers
        may not do that, and the admin's `atto declare` does.

        Raises `TopologyMismatch` for another partition count than the namespace has, `BrokerUnavailable` for
        a broker without JetStream or too old, `BrokerRefused` where it has no room for the bounds.
        """
        await _check_server(jetstream)
        config = await self._ensure(jetstream, self._turns_config(), self._turns, renew=renew)
        partitions = self._check_partitions(config)
        events = await self._ensure(jetstream, self._events_config(), self._events, renew=renew)
        for wanted, given in (
            (self._cancels_config(), self._cancels),
            (self._dead_config(), self._dead),
            (self._members_config(), {}),
        ):
            await self._ensure(jetstream, wanted, given, renew=renew)
        await self._replicate_sessions(jetstream)
        kept = Kept.of(events)
        max_age = events.get("max_age", 0) / _SECOND or None if kept is None else kept.records
        return Declared(partitions, config["max_msgs_per_subject"], config["num_replicas"], max_age, kept)

    async def _ensure(
        self, jetstream: JetStream, wanted: dict[str, Any], given: dict[str, Any], *, renew: bool
    ) -> dict[str, Any]:
        """Creates the stream, or enforces the explicitly given settings. Returns its configuration."""
        name = wanted["name"]
        info = await stream_info(jetstream, name)
        if info is None:
            try:
                return await self._write(jetstream, "CREATE", wanted)
            except BrokerRefused as error:
                if error.err_code != _NAME_IN_USE:
                    raise
            info = await stream_info(jetstream, name)  # another worker was faster
        config = {} if info is None else info.config
        changes = {
            key: value
            for key, value in {**given, "num_replicas": self._replicas}.items()
            if value is not None and config.get(key) != value
        }
        if name == self.subjects.turns_stream:
            transform = self._transform(self._check_partitions(config))
            if config.get("subject_transform") != transform:
                changes["subject_transform"] = transform
        if renew and info is not None:
            changes = {**_renewed(info, wanted), **changes}
        if name == self.subjects.events_stream:
            changes.update(self._kept_anew({**config, **changes}, renew=renew))
        subjects = config.get("subjects", [])
        if missing := [subject for subject in wanted["subjects"] if subject not in subjects]:
            changes["subjects"] = [*subjects, *missing]
        if not changes:
            return config
        return await self._write(jetstream, "UPDATE", {**config, **changes})

    async def _write(self, jetstream: JetStream, verb: str, config: dict[str, Any]) -> dict[str, Any]:
        try:
            reply = await jetstream.api(f"STREAM.{verb}.{config['name']}", config)
        except BrokerRefused as error:
            raise explained(error, config, self.subjects) from None
        return _infos.decode(reply).config

    def _kept_anew(self, config: dict[str, Any], *, renew: bool) -> dict[str, Any]:
        """What changes in a stream of events for the ages that are given, or when it is renewed."""
        known = Kept.of(config)
        records, deltas = self._records_max_age, self._deltas_max_age
        if known is None and not renew:
            return {} if records is None else _aged(config, records)
        if known is None:
            before = config.get("max_age", 0) / _SECOND
            kept = Kept.given(deltas=deltas, records=records or before or None)
        elif records is None and deltas is None:
            return {}
        else:
            kept = Kept.given(
                deltas=known.deltas if deltas is None else deltas,
                records=known.records if records is None else records,
            )
        if kept == known:
            return {}
        metadata: dict[str, str] = config.get("metadata") or {}
        return {
            "allow_msg_ttl": True,
            "metadata": {**metadata, KEPT_KEY: str(kept)},
            **_aged(config, kept.stream),
        }

    async def _replicate_sessions(self, jetstream: JetStream) -> None:
        """The store makes its bucket by itself, once; who gives `replicas` later means the sessions, too."""
        if self._replicas is None:
            return
        name = f"KV_{self.subjects.sessions_bucket}"
        info = await stream_info(jetstream, name)
        if info is not None and info.config.get("num_replicas") != self._replicas:
            await jetstream.api(f"STREAM.UPDATE.{name}", {**info.config, "num_replicas": self._replicas})

    def _check_partitions(self, config: dict[str, Any]) -> int:
        declared = int(config.get("metadata", {}).get(PARTITIONS_KEY, 0))
        if declared == 0:
            raise TopologyMismatch(
                f"stream {config.get('name')!r} exists and is not atto's: use another namespace"
            )
        if self._partitions is not None and self._partitions != declared:
            raise TopologyMismatch(
                f"namespace {self.subjects.namespace!r} was declared with {declared} partitions, not "
                f"{self._partitions}: start with partitions={declared}, or use another namespace"
            )
        return declared

    def _turns_config(self) -> dict[str, Any]:
        partitions = self._partitions or PARTITIONS
        config = self._stream(
            self.subjects.turns_stream,
            self.subjects.turns,
            subject_transform=self._transform(partitions),
            retention="workqueue",
            discard="new",
            # Without this one, a full session silently loses its oldest accepted turn (measured, 2.15.1).
            discard_new_per_subject=True,
            max_msgs_per_subject=self._turns["max_msgs_per_subject"] or BACKLOG,
            max_msgs=self._turns["max_msgs"] or -1,
            max_bytes=self._turns["max_bytes"] or TURNS_MAX_BYTES,
            duplicate_window=DUPLICATE_WINDOW * _SECOND,
            max_consumers=_max_consumers(partitions),
            metadata={PARTITIONS_KEY: str(partitions), BOUNDS_KEY: "1"},
        )
        return {**config, "subjects": [self.subjects.turns, self.subjects.answers]}

    def _transform(self, partitions: int) -> dict[str, str]:
        return {"src": self.subjects.submitted, "dest": self.subjects.partitioned(partitions)}

    def _events_config(self) -> dict[str, Any]:
        """It tells what runs have done: a full stream refuses, and drops nothing before its time."""
        kept = Kept.given(deltas=self._deltas_max_age, records=self._records_max_age)
        config = self._log(
            self.subjects.events_stream,
            self.subjects.events,
            discard="new",
            max_msgs_per_subject=-1,
            max_msgs=-1,
            max_bytes=self._events["max_bytes"] or EVENTS_MAX_BYTES,
            max_age=int(kept.stream * _SECOND),
            allow_msg_ttl=True,
            metadata={BOUNDS_KEY: "1", KEPT_KEY: str(kept)},
        )
        return {**config, "subjects": [self.subjects.events, self.subjects.fences]}

    def _cancels_config(self) -> dict[str, Any]:
        """One a run. What was acknowledged is kept for its time: a full stream refuses."""
        return self._log(
            self.subjects.cancels_stream,
            self.subjects.cancels,
            discard="new",
            max_msgs=CANCELS_MAX_MSGS,
            max_msg_size=CANCEL_MAX_BYTES,
            max_bytes=self._cancels["max_bytes"] or CANCELS_MAX_BYTES,
            max_age=EVENTS_MAX_AGE * _SECOND,
            metadata={BOUNDS_KEY: "1"},
        )

    def _dead_config(self) -> dict[str, Any]:
        """The oldest go first: a full stream must not keep bad turns from ending."""
        max_age = self._dead["max_age"]
        return self._log(
            self.subjects.dead_stream,
            self.subjects.dead_letters,
            max_msgs_per_subject=-1,
            max_bytes=self._dead["max_bytes"] or DEAD_MAX_BYTES,
            max_age=DEAD_MAX_AGE * _SECOND if max_age is None else max_age,
            metadata={BOUNDS_KEY: "1"},
        )

    def _members_config(self) -> dict[str, Any]:
        """Who is here: keys that expire unless they are renewed.

        On disk, for a stream in memory is gone, with its configuration, when the server starts again. Without
        roll-ups: a header of one message would remove all keys.
        """
        bucket = self.subjects.members_bucket
        return self._stream(
            f"KV_{bucket}",
            f"$KV.{bucket}.>",
            max_msgs_per_subject=1,
            max_bytes=MEMBERS_MAX_BYTES,
            discard="new",  # a key that lives is not pushed out
            allow_msg_ttl=True,
            metadata={BOUNDS_KEY: "1"},
        )

    def _log(self, name: str, subjects: str, **settings: Any) -> dict[str, Any]:
        return self._stream(name, subjects, **{"max_msgs_per_subject": 1, "max_msgs": 100_000, **settings})

    def _stream(self, name: str, subjects: str, **settings: Any) -> dict[str, Any]:
        return {
            "name": name,
            "subjects": [subjects],
            "retention": "limits",
            "discard": "old",
            "storage": "file",
            "num_replicas": self._replicas or 1,
            "allow_direct": True,
            **settings,
        }


def _aged(config: dict[str, Any], seconds: float) -> dict[str, Any]:
    max_age = int(seconds * _SECOND)
    return {} if config.get("max_age") == max_age else {"max_age": max_age}


def _or_none(bound: int | None) -> int | None:
    """As the broker writes a bound of 0: none."""
    return -1 if bound == 0 else bound


def _renewed(info: StreamInfo, wanted: dict[str, Any]) -> dict[str, Any]:
    """The bounds that a stream of an older version lacks.

    A bound that what is stored exceeds already would drop some of it at once, and is left out.
    """
    config = info.config
    metadata: dict[str, str] = config.get("metadata") or {}
    if BOUNDS_KEY in metadata or BOUNDS_KEY not in wanted.get("metadata", {}):
        return {}
    changes = {
        key: wanted[key]
        for key, unbounded in _UNBOUNDED.items()
        if wanted.get(key, unbounded) != unbounded and config.get(key, unbounded) == unbounded
    }
    if info.state.bytes > changes.get("max_bytes", info.state.bytes):
        del changes["max_bytes"]
    return {**changes, "discard": wanted["discard"], "metadata": {**metadata, **wanted["metadata"]}}


def _max_consumers(partitions: int) -> int:
    """Two a partition, one that owns and one that delivers. It cannot be changed later.

    Left to the server, which has a cap of 1,000 (2.15), where that is enough: an account may allow less.
    """
    needed = 2 * (partitions + 1)
    return -1 if needed <= _CONSUMERS_BY_DEFAULT else needed + _MORE_CONSUMERS


async def _check_server(jetstream: JetStream) -> None:
    version = jetstream.connection.connected_server_version
    if (version.major, version.minor) < MINIMUM_SERVER:
        raise BrokerUnfit(f"the broker is nats-server {version}: atto needs 2.11 or newer")
    try:
        await jetstream.api("INFO")
    except NoResponders:
        raise BrokerUnfit(
            "the broker has JetStream turned off: start nats-server with `-js`, or enable it for the account"
        ) from None
