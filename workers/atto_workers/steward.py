"""Who owns what, kept as it should be: claims its share, takes over from the dead, lets go of surplus."""

import asyncio
import logging
import random
import time
from collections.abc import Collection, Mapping

from atto.protocol.errors import BrokerRefused, BrokerUnavailable
from atto_workers.coalesced import Coalesced
from atto_workers.delivery import UNKNOWN_HORIZON, Claim
from atto_workers.intake import Intake
from atto_workers.mailbox import Mailboxes
from atto_workers.ownership import Owner, Ownership, PartitionKey, Sight, Tenure, label
from atto_workers.presence import Presence
from atto_workers.rebalancing import Held, Plan, View, decide
from atto_workers.run.scope import StopReason
from atto_workers.spread import share

PERIOD = 1.0
"""Seconds between looks at who is there and who owns what; news make it sooner."""
LONGEST_PERIOD = 10.0
"""Seconds between looks in the largest fleets. A look costs the broker a name for each consumer and each
worker, so that looks of all workers, each second, would cost it the square of their number."""
READ_AT_MOST = 50_000
"""Names a second that the looks of all workers together may cost; they look less often where it would be
more. Between looks neighbours watch one another, and pulls tell of an ownership that ended."""
SPACING = 0.05
"""Part of a period that lies between two looks, however many news come in."""
RENEWAL_GRACE = 1.0
"""Seconds that running turns have before a partition is claimed anew: its other sessions wait for it."""
RETRY_PAUSE = 0.2
"""Seconds before a broker that is away is asked again whether a claim stands."""
AT_ONCE = 128
"""Partitions that are claimed, restored or let go of at one time: the broker does one after another, and who
waits in line for it loses patience."""
STOP_PATIENCE = 5.0
"""Seconds that a run has to end once it was stopped."""

BLINDNESS = 10.0
"""Seconds without a look at the owners after which a worker does not call itself ready."""

_log = logging.getLogger("atto.worker")


class Steward:
    """Keeps one worker's claims. `grace`: seconds that running turns have when a partition is let go."""

    def __init__(
        self,
        ownership: Ownership,
        presence: Presence,
        intake: Intake,
        mailboxes: Mailboxes,
        *,
        tasks: asyncio.TaskGroup,
        worker: str,
        partitions: int,
        grace: float,
    ) -> None:
        self.claims: dict[PartitionKey, Claim] = {}
        self._ownership = ownership
        self._presence = presence
        self._intake = intake
        self._mailboxes = mailboxes
        self._tasks = tasks
        self._worker = worker
        self._partitions: tuple[PartitionKey, ...] = (None, *range(partitions))
        self._grace = grace
        self._releases: dict[PartitionKey, asyncio.Task[None]] = {}
        self._line = asyncio.Semaphore(AT_ONCE)
        self._news = asyncio.Event()
        self._observe = Coalesced(self._observe_now, tasks)
        self._looked_at = float("-inf")
        self._looked_over = -1
        self._period = PERIOD
        self._aims: Mapping[PartitionKey, str] = {}
        self._members: set[str] = set()
        self._vacant: set[PartitionKey] = set()
        self._is_short = False

    def look(self, _claim: Claim | None = None) -> None:
        """Something may have changed: look soon."""
        self._news.set()

    def unready(self) -> str | None:
        """Why this worker does not have its share now; None if it has, or others hold what it waits for."""
        ago = time.monotonic() - self._looked_at
        if ago > BLINDNESS + self._period:
            return f"has not seen who owns what for {ago:.0f} s"
        vacant = len(self._vacant - self.claims.keys())
        return f"{vacant} partitions of its share are not claimed yet" if vacant else None

    def renew(self, claim: Claim) -> None:
        """Something that the claim's consumer delivered never came: a new one, to which it comes again.

        What runs has a moment to finish; what does not goes on under the new claim.
        """
        if claim.is_open and claim.partition not in self._releases:
            _log.warning(
                "%s missed a delivery of partition %s: claims it anew", self._worker, claim.partition
            )
            self._begin_release(claim, RENEWAL_GRACE)

    async def serve(self) -> None:
        """Looks again and again, until cancelled."""
        was_away = False
        while True:
            try:
                async with asyncio.timeout(self._period * random.uniform(0.9, 1.1)):  # noqa: S311 - spreads load
                    await self._news.wait()
                await asyncio.sleep(SPACING * self._period)
            except TimeoutError:
                pass
            self._news.clear()
            try:
                await self.reconcile()
            except (BrokerUnavailable, BrokerRefused) as error:
                level = logging.DEBUG if was_away else logging.WARNING
                _log.log(level, "worker %s cannot look at its partitions now: %s", self._worker, error)
                was_away = True
                self._period = PERIOD
            else:
                was_away = False

    async def reconcile(self) -> None:
        """One look, and what follows from it. Raises `BrokerUnavailable`, `BrokerRefused`."""
        sight = await self._observe()
        await self._restore(
            [claim for claim in self.claims.values() if claim.tenure.delivery not in sight.deliveries]
        )
        roll = await self._presence.roll({owner.worker for owner in sight.owners.values()})
        view = View(self._worker, self._partitions, roll.members, roll.living, sight.owners)
        self._members = roll.members
        names = len(roll.members) + len(sight.owners) + len(sight.deliveries)
        self._period = min(LONGEST_PERIOD, max(PERIOD, len(roll.members) * names / READ_AT_MOST))
        await self._apply(decide(view, self._held()))

    async def _observe_now(self) -> Sight:
        looking_at, looking_over = time.monotonic(), self._ownership.reconnects
        looked_for = list(self.claims.values())  # what is claimed meanwhile may be on no page
        sight = await self._ownership.look()
        # In one step with the look that it follows from: a claim that is still there counts as looked at.
        for claim in looked_for:
            if self.claims.get(claim.partition) is claim and not _stands(claim, sight.owners):
                self._lose(claim)
        self._looked_at, self._looked_over = looking_at, looking_over
        return sight

    def _held(self) -> dict[PartitionKey, Held]:
        return {
            partition: Held(claim.tenure.consumer, partition in self._releases)
            for partition, claim in self.claims.items()
        }

    async def _apply(self, plan: Plan) -> None:
        self._aims = plan.aims
        for partition in plan.release:
            self._begin_release(self.claims[partition], self._grace)
        for consumer in plan.remove:  # let go of while the broker was away: nobody takes from the living
            await self._ownership.remove(consumer)
        if plan.remove:
            await self._presence.announce()
        self._vacant = set(plan.take)
        await self._take(plan.take)
        await self._find_horizons()
        if plan.take.keys() - self.claims.keys():  # another one was faster, or its consumer not quite gone
            self._period = PERIOD
        self._tell_of_share(plan.mine)

    def _tell_of_share(self, mine: Collection[PartitionKey]) -> None:
        """A worker that joins waits for what the others hand over: the log says when that has come."""
        was_short, self._is_short = self._is_short, not self.claims.keys() >= set(mine)
        if was_short and not self._is_short:
            count = sum(partition is not None for partition in mine)
            _log.info("%s has its whole share: owns %d partitions", self._worker, count)

    async def assure(self, claim: Claim) -> bool:
        """Whether the claim stood a moment ago, at a time after this call at the latest; if not, it is given
        up. False, too, if the broker cannot say while the partition is handed back: nobody waits for that.

        Asks the broker only if this worker was paused, or its connection lost, since it last looked: while
        its presence is renewed, and over one connection, nobody can have taken it for dead. All who wait for
        that look share it.
        """
        while not claim.is_lost and not self._is_proven():
            if await self.verify(claim):
                break
            if not claim.is_open:
                return False
            await asyncio.sleep(RETRY_PAUSE)
        return not claim.is_lost

    def _is_proven(self) -> bool:
        is_recent = self._presence.renewals.prove(self._looked_at)
        # What is sent while the connection is away is delivered after it, when a successor may have spoken.
        is_same = self._ownership.is_connected and self._looked_over == self._ownership.reconnects
        return is_recent and is_same

    async def verify(self, claim: Claim) -> bool:
        """Finds out whether a claim still stands, and gives it up if not; False if the broker cannot say."""
        try:
            sight = await self._observe()
        except (BrokerUnavailable, BrokerRefused):
            return False
        if not _stands(claim, sight.owners) and not claim.is_lost:
            self._lose(claim)
        return True

    async def release_all(self) -> None:
        """Hands every partition back: what runs may finish within the grace time."""
        under_way = list(self._releases.values())
        if heirs := self._members - {self._worker}:
            self._aims = share(self._partitions, heirs)
        async with asyncio.TaskGroup() as tasks:
            for partition in self.claims.keys() - self._releases.keys():
                tasks.create_task(self._release(self.claims[partition], self._grace))
        await asyncio.gather(*under_way)
        await self._remove_own()
        await self._presence.announce()

    async def _take(self, vacant: Mapping[PartitionKey, Owner | None]) -> None:
        """Claims partitions that nobody has, or that a dead worker has."""
        if not vacant:
            return
        for owner in {owner.worker for owner in vacant.values() if owner is not None}:
            taken = [label(key) for key, held in vacant.items() if held is not None and held.worker == owner]
            _log.info(
                "%s takes %d partitions over from %s: %s", self._worker, len(taken), owner, ", ".join(taken)
            )
        silent = self._presence.silent
        tenures = await asyncio.gather(
            *(self._claim(*item) for item in vacant.items()), return_exceptions=True
        )
        failures = [tenure for tenure in tenures if isinstance(tenure, BaseException)]
        for partition, tenure in zip(vacant, tenures, strict=True):
            if isinstance(tenure, Tenure):
                owner = vacant[partition]
                from_silent = owner is not None and owner.worker in silent
                claim = Claim(partition, tenure, UNKNOWN_HORIZON, from_silent=from_silent)
                self.claims[partition] = claim
                await self._intake.open(claim)
        if failures:
            raise failures[0]

    async def _restore(self, claims: list[Claim]) -> None:
        """The broker was restarted: it knows who owns what, but not what it has delivered to whom. What is
        held runs on; it comes once more, and is not taken twice.
        """
        unserved = [
            claim for claim in claims if claim.is_open and claim.tenure.delivery != claim.tenure.consumer
        ]
        outcomes = await asyncio.gather(*map(self._restore_one, unserved), return_exceptions=True)
        for failure in outcomes:
            if failure is not None:
                raise failure

    async def _restore_one(self, claim: Claim) -> None:
        self._intake.close(claim)  # no pull may reach the new consumer before its deliveries are counted
        try:
            async with self._line:
                if not await self._ownership.deliver(claim.partition, claim.tenure.consumer):
                    self._lose(claim)
        finally:
            if claim.is_open:
                claim.horizon = UNKNOWN_HORIZON
                claim.restored += 1
                await self._intake.open(claim)

    async def _find_horizons(self) -> None:
        """Up to where turns may have been delivered to earlier owners: read after the claims, so that turns
        that came in between are only asked about once too often.
        """
        unknown = [claim for claim in self.claims.values() if claim.horizon == UNKNOWN_HORIZON]
        if unknown:
            horizon = await self._ownership.last_turn()
            for claim in unknown:
                claim.horizon = horizon

    async def _claim(self, partition: PartitionKey, owner: Owner | None) -> Tenure | None:
        async with self._line:
            if owner is not None:
                await self._ownership.remove(owner.consumer)
            return await self._ownership.claim(partition)

    async def _remove_own(self) -> None:
        """What is still ours: a claim may have been under way when the steward was stopped."""
        try:
            owners = await self._ownership.owners() if self._ownership.is_connected else {}
        except (BrokerUnavailable, BrokerRefused) as error:
            _log.warning("what %s still owns is left to be taken over: %s", self._worker, error)
            return
        for owner in owners.values():
            if owner.worker == self._worker:
                await self._remove(owner.consumer)

    async def _remove(self, consumer: str) -> None:
        try:
            async with self._line:
                if not self._ownership.is_connected:
                    _log.warning("%s is left to be taken over: the broker is away", consumer)
                    return
                await self._ownership.remove(consumer)
        except (BrokerUnavailable, BrokerRefused) as error:
            _log.warning("%s is left to be taken over: %s", consumer, error)

    def _lose(self, claim: Claim) -> None:
        level = logging.DEBUG if claim.partition in self._releases else logging.WARNING
        _log.log(level, "worker %s lost partition %s", self._worker, claim.partition)
        if self.claims.get(claim.partition) is claim:  # the partition may have been claimed anew
            del self.claims[claim.partition]
        self._intake.close(claim)
        self._mailboxes.lose(claim)

    def _begin_release(self, claim: Claim, grace: float) -> None:
        # Closed there and then: nothing more may begin, whenever the task does.
        self._intake.close(claim)
        self._mailboxes.close(claim)
        self._releases[claim.partition] = self._tasks.create_task(self._release(claim, grace))

    async def _release(self, claim: Claim, grace: float) -> None:
        partition = claim.partition
        try:
            self._intake.close(claim)
            self._mailboxes.close(claim)
            if not await self._settles(claim, grace):
                self._mailboxes.stop(claim, StopReason.HANDED_BACK)
                if not await self._settles(claim, STOP_PATIENCE):
                    _log.error("partition %s: a tool ignores its cancellation; left behind", partition)
                    self._mailboxes.lose(claim)
            await self._remove(claim.tenure.consumer)
        finally:
            if self.claims.get(partition) is claim:
                del self.claims[partition]
            self._releases.pop(partition, None)
            self._news.set()
        successor = self._aims.get(partition, self._worker)
        if successor != self._worker:
            await self._presence.tell(successor)

    async def _settles(self, claim: Claim, patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                await self._mailboxes.settled(claim)
        except TimeoutError:
            return False
        return True


def _stands(claim: Claim, owners: Mapping[PartitionKey, Owner]) -> bool:
    owner = owners.get(claim.partition)
    return owner is not None and owner.consumer == claim.tenure.consumer
