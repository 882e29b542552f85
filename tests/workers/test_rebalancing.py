"""What workers decide about their partitions, in fleets of a model: one owner each, no thrash, nothing taken
from the living; settled in a bounded number of rounds once all see the same.
"""

import random
from collections import Counter
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from atto_workers.ownership import Owner, PartitionKey
from atto_workers.rebalancing import Held, Plan, View, decide

ROUNDS = 3
"""One to let go of what others ought to have, one to take it, one that finds nothing to do."""


class Fleet:
    """Workers and a broker that lets one claimant a partition win. Hand-overs may take a while."""

    def __init__(self, partitions: int, workers: list[str], seed: int) -> None:
        self.partitions: list[PartitionKey] = [None, *range(partitions)]
        self.owners: dict[PartitionKey, Owner] = {}
        self.claims: dict[str, dict[PartitionKey, Held]] = {worker: {} for worker in workers}
        self.alive = set(workers)
        self.leaving: set[str] = set()
        self.moves = Counter[PartitionKey]()
        self.random = random.Random(seed)
        self._nonces = count()

    def scatter(self) -> None:
        """A state in which a fleet may be found: owners alive, dead or gone, claims that do not stand,
        consumers that no claim knows of.
        """
        everybody = [*self.claims, "dead-a", "dead-b"]
        for partition in self.partitions:
            if self.random.random() < 0.8:
                owner = self._create(partition, self.random.choice(everybody))
                if owner.worker in self.claims and self.random.random() < 0.8:
                    self.claims[owner.worker][partition] = Held(owner.consumer)
            for worker in self.claims:
                if partition not in self.claims[worker] and self.random.random() < 0.05:
                    self.claims[worker][partition] = Held(f"{partition}-{worker}-lost")

    def view(self, worker: str, unseen: set[str] | None = None) -> View:
        members = self.alive - self.leaving - (unseen or set())
        members = members | ({worker} - self.leaving)
        living = self.alive - (unseen or set()) | {worker}
        return View(worker, self.partitions, members, living, dict(self.owners))

    def apply(self, worker: str, view: View, *, slow: float = 0.0) -> Plan:
        """With probability `slow` each, what is let go of is still being handed back afterwards."""
        claims = self.claims[worker]
        plan = decide(view, claims)
        self.check(worker, view, plan)
        for partition in plan.lose:
            del claims[partition]
        for partition in plan.release:
            claims[partition] = claims[partition]._replace(is_releasing=True)
        for partition in [partition for partition, held in claims.items() if held.is_releasing]:
            if self.random.random() >= slow:
                self._remove(partition, claims.pop(partition).consumer)
        for consumer in plan.remove:
            self._remove(None, consumer, anywhere=True)
        for partition, owner in plan.take.items():
            if owner is not None:
                self._remove(partition, owner.consumer)
            if partition not in self.owners:
                claims[partition] = Held(self._create(partition, worker).consumer)
                self.moves[partition] += 1
        return plan

    def check(self, worker: str, view: View, plan: Plan) -> None:
        """What holds of every plan, whatever its worker sees."""
        claims = self.claims[worker]
        assert set(plan.aims) == (set(view.partitions) if view.members else set())
        assert set(plan.aims.values()) <= set(view.members)
        assert set(plan.mine) == {partition for partition, aim in plan.aims.items() if aim == worker}
        assert not set(plan.release) & set(plan.mine), "it keeps what it should keep"
        assert not set(plan.release) & set(plan.lose)
        assert set(plan.take) <= set(plan.mine)
        for partition, owner in plan.take.items():
            assert owner == view.owners.get(partition)
            assert owner is None or owner.worker == worker or owner.worker not in view.living
        for consumer in plan.remove:
            assert consumer in {owner.consumer for owner in view.owners.values() if owner.worker == worker}
        if worker not in view.members:
            assert not plan.take
            standing = {partition for partition, held in claims.items() if not held.is_releasing}
            assert set(plan.release) == standing - set(plan.lose)

    def round(self, *, slow: float = 0.0, unseen: bool = False) -> int:
        """Everybody looks and acts once, in any order; how many did anything."""
        acted = 0
        for worker in self.random.sample(sorted(self.alive), len(self.alive)):
            blind = {each for each in self.alive if unseen and self.random.random() < 0.3}
            plan = self.apply(worker, self.view(worker, blind), slow=slow)
            acted += bool(plan.lose or plan.release or plan.remove or plan.take)
        return acted

    def is_settled(self) -> bool:
        members = self.alive - self.leaving
        limit = -(-len(self.partitions) // len(members))
        load = Counter(owner.worker for owner in self.owners.values())
        return (
            self.owners.keys() == set(self.partitions)
            and load.keys() <= members
            and max(load.values()) <= limit
            and all(
                self.claims[owner.worker].get(partition) == Held(owner.consumer)
                for partition, owner in self.owners.items()
            )
            and sum(len(self.claims[worker]) for worker in self.alive) == len(self.partitions)
        )

    def _create(self, partition: PartitionKey, worker: str) -> Owner:
        owner = self.owners[partition] = Owner(worker, f"{partition}-{worker}-{next(self._nonces)}")
        return owner

    def _remove(self, partition: PartitionKey, consumer: str, *, anywhere: bool = False) -> None:
        for each in list(self.owners) if anywhere else [partition]:
            if each in self.owners and self.owners[each].consumer == consumer:
                del self.owners[each]


fleets = st.builds(
    lambda partitions, workers, seed: Fleet(partitions, [f"w{number}" for number in range(workers)], seed),
    st.integers(1, 40),
    st.integers(1, 8),
    st.integers(),
)


@given(fleets)
def test_it_settles_from_any_state_once_all_see_the_same(fleet: Fleet):
    fleet.scatter()
    for _ in range(ROUNDS):
        fleet.round()
    assert fleet.is_settled()
    assert fleet.round() == 0
    assert max(fleet.moves.values(), default=0) <= 1, "a partition moves once"


@given(fleets, st.data())
def test_it_settles_again_after_some_have_died_left_and_joined(fleet: Fleet, data: st.DataObject):
    for _ in range(ROUNDS):
        fleet.round()
    before = dict(fleet.owners)
    members = sorted(fleet.alive)
    dead = data.draw(st.sets(st.sampled_from(members), max_size=len(members) - 1))
    rest = sorted(fleet.alive - dead)
    fleet.leaving = data.draw(st.sets(st.sampled_from(rest), max_size=len(rest) - 1))
    joined = data.draw(st.integers(0, 3))
    fleet.alive -= dead
    for number in range(joined):
        fleet.claims[f"j{number}"] = {}
        fleet.alive.add(f"j{number}")
    fleet.moves.clear()
    for _ in range(ROUNDS):
        fleet.round()
    assert fleet.is_settled()
    assert max(fleet.moves.values(), default=0) <= 1
    if not (dead or fleet.leaving or joined):
        assert fleet.owners == before, "nothing moves without a reason"


@given(fleets, st.floats(0.0, 0.9), st.integers(1, 6))
def test_slow_hand_overs_only_delay_it(fleet: Fleet, slow: float, rounds: int):
    fleet.scatter()
    for _ in range(rounds):
        fleet.round(slow=slow)
    for _ in range(ROUNDS):
        fleet.round()
    assert fleet.is_settled()


@given(fleets, st.integers(1, 6))
def test_it_is_safe_while_they_see_different_things_and_settles_afterwards(fleet: Fleet, rounds: int):
    """Whoever is not seen is taken from; it finds its claims lost. `check` looks at every plan."""
    fleet.scatter()
    for _ in range(rounds):
        fleet.round(slow=0.3, unseen=True)
        for worker, claims in fleet.claims.items():
            standing = [
                p for p, held in claims.items() if fleet.owners.get(p) == Owner(worker, held.consumer)
            ]
            others = [p for other in fleet.claims if other != worker for p in fleet.claims[other]]
            both = [p for p in standing if p in others]
            for partition in both:
                holders = [
                    other
                    for other, theirs in fleet.claims.items()
                    if partition in theirs and fleet.owners[partition].consumer == theirs[partition].consumer
                ]
                assert holders == [worker], "one claim stands"
    for _ in range(ROUNDS):
        fleet.round()
    assert fleet.is_settled()
