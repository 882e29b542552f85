"""Who is here, who owns what, and how far behind they are: a look from outside, for operators."""

import logging
from datetime import datetime
from typing import NamedTuple

import msgspec

from atto.broker.jetstream import JetStream
from atto.broker.listing import listed
from atto.protocol.errors import BrokerUnavailable, NoResponders, TopologyMissing
from atto.protocol.subjects import Subjects
from atto_workers.ownership import Owner, PartitionKey, delivery_of, owned_by
from atto_workers.presence import PING_PATIENCE, About
from atto_workers.topology import PARTITIONS_KEY, stream_info

_log = logging.getLogger("atto.worker")


class PartitionView(msgspec.Struct, frozen=True, kw_only=True):
    """A partition: `lag` turns wait in the stream, `in_flight` were handed to the owner and have not ended.

    `partition` None is the stray one, of what the server could not place. `worker` and `since` (when the
    ownership began) are None if nobody owns it.
    """

    partition: PartitionKey
    worker: str | None = None
    since: datetime | None = None
    lag: int = 0
    in_flight: int = 0


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker, and the sum of its partitions.

    `status`: `member` takes its share; `leaving` answers, but shares no more; `silent` has a key, but does
    not answer; `dead` is gone, and others take over from it.
    """

    worker: str
    status: str
    host: str = ""
    pid: int = 0
    agent: str = ""
    partitions: int = 0
    lag: int = 0
    in_flight: int = 0


class Handed(NamedTuple):
    """What of a partition was handed to `worker`: turns up to number `up_to`, those that ended among them."""

    worker: str
    up_to: int


class _Delivered(msgspec.Struct, frozen=True):
    stream_seq: int = 0


class _Consumer(msgspec.Struct):
    name: str
    created: datetime
    delivered: _Delivered = _Delivered()
    num_pending: int = 0
    num_ack_pending: int = 0


class _Consumers(msgspec.Struct):
    total: int
    consumers: list[_Consumer] | None = None


class _State(msgspec.Struct):
    subjects: dict[str, int] | None = None


class _Page(msgspec.Struct):
    state: _State
    total: int = 0


class Census:
    """Looks at a namespace, and changes nothing. Needs no worker to be there."""

    def __init__(self, jetstream: JetStream, subjects: Subjects) -> None:
        self._jetstream = jetstream
        self._subjects = subjects

    async def partitions(self) -> list[PartitionView]:
        """All of them, in order, the stray one last. Raises `TopologyMissing`, `BrokerUnavailable`."""
        stream = self._subjects.turns_stream
        info = await stream_info(self._jetstream, stream)
        count = 0 if info is None else int(info.config.get("metadata", {}).get(PARTITIONS_KEY, 0))
        if count == 0:
            raise TopologyMissing(
                f"namespace {self._subjects.namespace!r} was never declared: start a worker"
            )
        owned: dict[PartitionKey, PartitionView] = {}
        consumers = {consumer.name: consumer for consumer in await self._consumers()}
        for name, consumer in consumers.items():
            partition, owner = owned_by(name) or (None, None)
            if owner is not None:
                delivering = consumers.get(delivery_of(name), consumer)
                owned[partition] = _view(partition, owner, consumer.created, delivering)
        waiting = {} if len(owned) == count + 1 else await self._waiting()
        return [
            owned.get(key) or PartitionView(partition=key, lag=waiting.get(key, 0))
            for key in (*range(count), None)
        ]

    async def workers(self) -> list[WorkerView]:
        """Those that are here, and those that still own partitions. Raises as `partitions` does."""
        partitions = await self.partitions()
        keys = await self._members()
        owners = {view.worker for view in partitions if view.worker is not None}
        views = [
            await self._worker(name, keys.get(name), [view for view in partitions if view.worker == name])
            for name in sorted(owners | keys.keys())
        ]
        # A broker that was killed may come back with the keys of workers that are long gone, and keep them.
        return [view for view in views if view.status != "dead" or view.partitions]

    async def handed(self) -> dict[PartitionKey, Handed]:
        """By partition, of those that have an owner: one request. Raises `BrokerUnavailable`."""
        consumers = {consumer.name: consumer for consumer in await self._consumers()}
        handed: dict[PartitionKey, Handed] = {}
        for name, consumer in consumers.items():
            if (owned := owned_by(name)) is not None:
                delivering = consumers.get(delivery_of(name), consumer)
                handed[owned[0]] = Handed(owned[1].worker, delivering.delivered.stream_seq)
        return handed

    async def _worker(self, name: str, known: About | None, owned: list[PartitionView]) -> WorkerView:
        try:
            answer = await self._ping(name)
            is_there = answer is not None or known is not None
        except NoResponders:  # a proof: its key has not expired yet
            answer, is_there = None, False
        about = answer or known or About()
        if answer is not None:
            status = "leaving" if known is None else "member"
        else:
            status = "silent" if is_there else "dead"
        return WorkerView(
            worker=name,
            status=status,
            host=about.host,
            pid=about.pid,
            agent=about.agent,
            partitions=len(owned),
            lag=sum(view.lag for view in owned),
            in_flight=sum(view.in_flight for view in owned),
        )

    async def _ping(self, worker: str) -> About | None:
        try:
            reply = await self._jetstream.request(self._subjects.worker(worker), timeout=PING_PATIENCE)
        except NoResponders:
            raise
        except BrokerUnavailable:
            return None
        return _about(reply, f"the answer of worker {worker!r}")

    async def _members(self) -> dict[str, About]:
        bucket = self._subjects.members_bucket
        keys = await self._jetstream.read_last(f"KV_{bucket}", [f"$KV.{bucket}.>"])
        members: dict[str, About] = {}
        for key in keys:
            name = key.subject.rpartition(".")[2]
            about = _about(key.data, f"the key of worker {name!r}") if key.data else None
            if about is not None:
                members[name] = about
        return members

    async def _consumers(self) -> list[_Consumer]:
        async def read(offset: int) -> tuple[list[_Consumer], int]:
            reply = await self._jetstream.api(
                f"CONSUMER.LIST.{self._subjects.turns_stream}", {"offset": offset}
            )
            page = msgspec.json.decode(reply, type=_Consumers)
            return page.consumers or [], page.total

        return await listed(read, name=lambda consumer: consumer.name)

    async def _waiting(self) -> dict[PartitionKey, int]:
        """Turns in the stream by partition: of those without an owner no consumer knows them."""

        async def read(offset: int) -> tuple[list[tuple[str, int]], int]:
            reply = await self._jetstream.api(
                f"STREAM.INFO.{self._subjects.turns_stream}", {"subjects_filter": ">", "offset": offset}
            )
            page = msgspec.json.decode(reply, type=_Page)
            return sorted((page.state.subjects or {}).items()), page.total

        found: dict[PartitionKey, int] = {}
        for subject, turns in await listed(read, name=lambda entry: entry[0]):
            partition = self._subjects.stored_turn(subject).partition
            found[partition] = found.get(partition, 0) + turns
        return found


def _about(data: bytes, what: str) -> About | None:
    """None for bytes that no worker wrote: whoever may write to the bucket or an inbox may write any."""
    try:
        return msgspec.json.decode(data, type=About)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        _log.warning("%s cannot be read, and is left out: %s", what, error)
        return None


def _view(partition: PartitionKey, owner: Owner, since: datetime, consumer: _Consumer) -> PartitionView:
    return PartitionView(
        partition=partition,
        worker=owner.worker,
        since=since,
        lag=consumer.num_pending,
        in_flight=consumer.num_ack_pending,
    )
