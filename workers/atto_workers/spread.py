"""Which worker ought to own which partition: the same answer in every worker that sees the same members."""

import hashlib
from collections.abc import Collection

from atto_workers.ownership import PartitionKey, label


def share(partitions: Collection[PartitionKey], members: Collection[str]) -> dict[PartitionKey, str]:
    """Rendezvous hashing with a bound: each partition goes to the member that it ranks highest among
    those that are not full, where full is the even share, rounded up.

    A member that joins or leaves moves little more than its own share.
    """
    limit = -(-len(partitions) // len(members))
    load = dict.fromkeys(members, 0)
    owners: dict[PartitionKey, str] = {}
    pairs = [(partition, member) for partition in partitions for member in members]
    for partition, member in sorted(pairs, key=_weight, reverse=True):
        if partition not in owners and load[member] < limit:
            owners[partition] = member
            load[member] += 1
    return owners


def _weight(pair: tuple[PartitionKey, str]) -> bytes:
    partition, member = pair
    return hashlib.blake2b(f"{label(partition)}@{member}".encode(), digest_size=8).digest()
