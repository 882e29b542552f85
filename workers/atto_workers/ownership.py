"""Ownership of partitions: to own one is to have created its consumer, and the broker allows but one.

A consumer's name is `<label>-<worker>-<nonce>`, new for every ownership, so that an acknowledgement by a
former owner goes nowhere. (Under a reused name it would remove the new owner's message: the server does not
look at the delivery count.)
"""

import secrets
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from atto.broker.jetstream import JetStream
from atto.broker.listing import listed
from atto.broker.refusals import CONSUMER_NOT_FOUND, FILTER_NOT_UNIQUE
from atto.protocol.errors import BrokerRefused
from atto.protocol.subjects import Subjects
from atto_workers.topology import stream_info

ACK_WAIT = 300.0
"""Seconds until the broker would deliver an unacknowledged turn again *inside* a living consumer, out of
order. In-progress heartbeats keep that from happening; a takeover does not wait for it."""

PATIENCE = 2.0
"""Seconds for one request about consumers; while replicas elect a leader, nobody answers."""
_DELIVERY = "turns-of-"
STRAY = "stray"
"""The label of what the server could not place in a partition: the tokens `*` and `>`."""

_SECOND = 1_000_000_000

PartitionKey = int | None
"""A partition's number; None is the stray one."""


class Owner(NamedTuple):
    """Who owns a partition, by the name of its consumer."""

    worker: str
    consumer: str


class Tenure(NamedTuple):
    """One's own ownership of a partition. `consumer` holds it, `delivery` delivers its turns. `epoch`: when
    it began, in microseconds of the broker's clock; it orders the owners of a partition.
    """

    consumer: str
    delivery: str
    epoch: int


class Sight(NamedTuple):
    """Who owns what, and the names of the consumers that deliver."""

    owners: dict[PartitionKey, Owner]
    deliveries: frozenset[str]


class _Created(msgspec.Struct):
    created: datetime


class _Names(msgspec.Struct):
    total: int
    consumers: list[str] | None = None


_names = msgspec.json.Decoder(_Names)
_created = msgspec.json.Decoder(_Created)


def delivery_of(consumer: str) -> str:
    """The consumer that delivers what another one owns."""
    return f"{_DELIVERY}{consumer}"


def label(partition: PartitionKey) -> str:
    """How a partition is called in names of consumers."""
    return STRAY if partition is None else f"p{partition}"


def owned_by(consumer: str) -> tuple[PartitionKey, Owner] | None:
    """What a consumer's name tells; None if it is of another kind."""
    owned, _, rest = consumer.partition("-")
    worker, _, _ = rest.partition("-")
    if owned == STRAY:
        return None, Owner(worker, consumer)
    if owned[:1] == "p" and owned[1:].isdecimal():
        return int(owned[1:]), Owner(worker, consumer)
    return None


class Ownership:
    """Claims and releases partitions for one worker."""

    def __init__(
        self, jetstream: JetStream, subjects: Subjects, worker: str, *, max_ack_pending: int, replicas: int
    ) -> None:
        self._jetstream = jetstream
        self._subjects = subjects
        self._worker = worker
        self._max_ack_pending = max_ack_pending
        self._replicas = replicas

    @property
    def reconnects(self) -> int:
        """How often the connection was lost."""
        return self._jetstream.connection.stats["reconnects"]

    @property
    def is_connected(self) -> bool:
        """Whether the broker can be asked now."""
        return self._jetstream.connection.is_connected

    async def owners(self) -> dict[PartitionKey, Owner]:
        """Who owns what, as the broker knows it."""
        return (await self.look()).owners

    async def look(self) -> Sight:
        """Who owns what, and what delivers, as the broker knows it."""
        names = await self._names()
        owners = dict(filter(None, map(owned_by, names)))
        return Sight(owners, frozenset(name for name in names if name.startswith(_DELIVERY)))

    async def _names(self) -> list[str]:
        async def read(offset: int) -> tuple[list[str], int]:
            reply = await self._jetstream.api(
                f"CONSUMER.NAMES.{self._subjects.turns_stream}", {"offset": offset}, timeout=PATIENCE
            )
            page = _names.decode(reply)
            return page.consumers or [], page.total

        return await listed(read, name=str)

    async def claim(self, partition: PartitionKey) -> Tenure | None:
        """The new ownership; None if another worker owns the partition."""
        name = f"{label(partition)}-{self._worker}-{secrets.token_hex(4)}"
        if self._replicas > 1:
            created = await self._create(name, self._delivering(partition))
            return None if created is None else Tenure(name, name, created)
        own = {"filter_subject": f"{self._subjects.namespace}.turn.{label(partition)}.owner.none"}
        created = await self._create(name, own)
        if created is None:
            return None
        tenure = Tenure(name, delivery_of(name), created)
        if not await self.deliver(partition, tenure.consumer):
            await self._clear(partition, but=tenure.delivery)
            if not await self.deliver(partition, tenure.consumer):
                await self.remove(name)
                return None
        return tenure

    async def deliver(self, partition: PartitionKey, consumer: str) -> bool:
        """Has the turns of a partition delivered to its owner, those that are not acknowledged once more;
        False if another one has them. No-op while they are.

        In memory: on disk, each such consumer has a file replaced ten times a second while turns come, which
        took half of a busy broker's CPU (measured, 2.15.1). After a restart of the broker it is made again,
        under the same name, so that what runs can still be acknowledged.
        """
        config = {**self._delivering(partition), "mem_storage": True}
        return await self._create(delivery_of(consumer), config) is not None

    async def _create(self, name: str, settings: dict[str, Any]) -> int | None:
        """When, in microseconds; None if its filter is another's."""
        config: dict[str, Any] = {
            "name": name,
            "durable_name": name,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "max_deliver": -1,
            # On a replicated work queue the server wants as many as the stream has (error 10134).
            "num_replicas": self._replicas,
            "metadata": {"atto-worker": self._worker},
            **settings,
        }
        stream = self._subjects.turns_stream
        request = {"stream_name": stream, "config": config, "action": "create"}
        try:
            reply = await self._jetstream.api(
                f"CONSUMER.DURABLE.CREATE.{stream}.{name}", request, timeout=PATIENCE
            )
        except BrokerRefused as error:
            if error.err_code == FILTER_NOT_UNIQUE:
                return None
            raise
        return int(_created.decode(reply).created.timestamp() * 1_000_000)

    def _delivering(self, partition: PartitionKey) -> dict[str, Any]:
        return {
            **self._filter(partition),
            "ack_wait": int(ACK_WAIT * _SECOND),
            "max_ack_pending": self._max_ack_pending,
        }

    async def _clear(self, partition: PartitionKey, *, but: str) -> None:
        """Removes what a former owner has delivered to it still."""
        for delivery in (await self.look()).deliveries - {but}:
            if delivery.startswith(f"{_DELIVERY}{label(partition)}-"):
                await self._delete(delivery)

    def _filter(self, partition: PartitionKey) -> dict[str, Any]:
        filters = self._subjects.partition(partition)
        if partition is None:
            # Filters that equal the stream's subjects may count as none, and then no acknowledgement of any
            # consumer removes its message (measured with one subject, 2.15.1). One more, which nothing has,
            # prevents it.
            filters.append(f"{self._subjects.namespace}.turn.stray.none.none")
        return {"filter_subjects": filters}

    async def remove(self, consumer: str) -> None:
        """Ends an ownership, one's own or a dead worker's. No-op if it has ended already.

        Whatever delivers to it goes too, also where owners need none by now: it is from before the stream had
        replicas, and nobody could claim the partition while it is there.
        """
        await self._delete(delivery_of(consumer))
        await self._delete(consumer)

    async def _delete(self, consumer: str) -> None:
        try:
            await self._jetstream.api(
                f"CONSUMER.DELETE.{self._subjects.turns_stream}.{consumer}", timeout=PATIENCE
            )
        except BrokerRefused as error:
            if error.err_code != CONSUMER_NOT_FOUND:
                raise

    async def last_turn(self) -> int:
        """The stream sequence up to which turns may have been delivered to somebody before."""
        info = await stream_info(self._jetstream, self._subjects.turns_stream, timeout=PATIENCE)
        return 0 if info is None else info.state.last_seq
