"""What a worker ought to do about its partitions: a pure function of what it sees. No I/O.

Safe when workers see different things: nobody takes from a worker that it sees alive, the broker lets one
claimant win, and what is let go of is vacant for a moment, never owned twice. Settled as soon as they see the
same: then everybody aims at the same spread.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from atto_workers.ownership import Owner, PartitionKey
from atto_workers.spread import share

Share = Callable[[Sequence[PartitionKey], Collection[str]], Mapping[PartitionKey, str]]


class View(NamedTuple):
    """What `worker` sees: `members` share the partitions, `living` are those that nobody may take from."""

    worker: str
    partitions: Sequence[PartitionKey]
    members: Collection[str]
    living: Collection[str]
    owners: Mapping[PartitionKey, Owner]


class Held(NamedTuple):
    """A claim of the worker: by which `consumer`, and whether it is being handed back."""

    consumer: str
    is_releasing: bool = False


class Plan(NamedTuple):
    """`aims`: who ought to own each partition. `mine`: those of them that this worker ought to own.

    `lose`: claims that another worker has, or nobody. `release`: claims to hand back. `remove`: consumers of
    this worker that no claim knows of, for partitions that are not its own. `take`: partitions to claim, with
    the owner to remove before; None if there is none.
    """

    aims: Mapping[PartitionKey, str]
    mine: Collection[PartitionKey]
    lose: Sequence[PartitionKey]
    release: Sequence[PartitionKey]
    remove: Sequence[str]
    take: Mapping[PartitionKey, Owner | None]


def fallen(owners: Mapping[PartitionKey, Owner], claims: Mapping[PartitionKey, Held]) -> list[PartitionKey]:
    """The claims that do not stand any more."""
    return [
        partition
        for partition, held in claims.items()
        if (owner := owners.get(partition)) is None or owner.consumer != held.consumer
    ]


def decide(view: View, claims: Mapping[PartitionKey, Held], *, spread: Share = share) -> Plan:
    """What to do now. A worker that is not a member is leaving: it hands back, and claims nothing."""
    aims: Mapping[PartitionKey, str] = spread(view.partitions, view.members) if view.members else {}
    mine = {partition for partition in view.partitions if aims.get(partition) == view.worker}
    lose = fallen(view.owners, claims)
    standing = claims.keys() - set(lose)
    release = [partition for partition in standing - mine if not claims[partition].is_releasing]
    remove = [
        owner.consumer
        for partition, owner in view.owners.items()
        if owner.worker == view.worker and partition not in mine and partition not in standing
    ]
    others = set(view.living) - {view.worker}
    take = {
        partition: owner
        for partition in view.partitions
        if partition in mine and partition not in standing
        if (owner := view.owners.get(partition)) is None or owner.worker not in others
    }
    return Plan(aims, mine, lose, release, remove, take)
