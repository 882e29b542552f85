"""Who owns what, kept as it should be: claims its share, takes over from the dead, lets go of surplus."""

import asyncio
import logging

from atto.protocol.errors import BrokerRefused, BrokerUnavailable
from atto_workers.delivery import UNKNOWN_HORIZON, Claim
from atto_workers.intake import Intake
from atto_workers.mailbox import Mailboxes
from atto_workers.ownership import Owner, Ownership, PartitionKey, Tenure, label
from atto_workers.presence import TIME_OUT, Presence
from atto_workers.run.scope import StopReason
from atto_workers.spread import share

PERIOD = 1.0
"""Seconds between looks at who is there and who owns what; news make it sooner."""

ASSURANCE = TIME_OUT - 1.0
"""Seconds for which a look at the owners can be relied on: others wait longer before they take over."""
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
        self._looked_at = 0.0
        self._looked_over = -1
        self._vacant: set[PartitionKey] = set()
        self._is_short = False

    def look(self, _claim: Claim | None = None) -> None:
        """Something may have changed: look soon."""
        self._news.set()

    def unready(self) -> str | None:
        """Why this worker does not have its share now; None if it has, or others hold what it waits for."""
        ago = asyncio.get_running_loop().time() - self._looked_at
        if ago > BLINDNESS:
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
                async with asyncio.timeout(PERIOD):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            try:
                await self.reconcile()
            except (BrokerUnavailable, BrokerRefused) as error:
                level = logging.DEBUG if was_away else logging.WARNING
                _log.log(level, "worker %s cannot look at its partitions now: %s", self._worker, error)
                was_away = True
            else:
                was_away = False

    async def reconcile(self) -> None:
        """One look, and what follows from it. Raises `BrokerUnavailable`, `BrokerRefused`."""
        looking_at, looking_over = asyncio.get_running_loop().time(), self._ownership.reconnects
        await self._presence.beat()
        owners, deliveries = await self._ownership.look()
        # In one step with the look that it follows from: a claim that is still there counts as looked at.
        for claim in [claim for key, claim in self.claims.items() if not _stands(claim, owners.get(key))]:
            self._lose(claim)
        self._looked_at, self._looked_over = looking_at, looking_over
        await self._restore(
            [claim for claim in self.claims.values() if claim.tenure.delivery not in deliveries]
        )
        roll = await self._presence.roll(owner.worker for owner in owners.values())
        wanted = share(self._partitions, roll.members)
        mine = [partition for partition in self._partitions if wanted[partition] == self._worker]
        for partition in self.claims.keys() - set(mine) - self._releases.keys():
            self._begin_release(self.claims[partition], self._grace)
        await self._give_up({key: owner for key, owner in owners.items() if key not in mine})
        others = roll.living - {self._worker}
        vacant = {
            partition: owners.get(partition)
            for partition in mine
            if partition not in self.claims
            and ((owner := owners.get(partition)) is None or owner.worker not in others)
        }
        self._vacant = set(vacant)
        await self._take(vacant)
        await self._find_horizons()
        self._tell_of_share(mine)

    def _tell_of_share(self, mine: list[PartitionKey]) -> None:
        """A worker that joins waits for what the others hand over: the log says when that has come."""
        was_short, self._is_short = self._is_short, not self.claims.keys() >= set(mine)
        if was_short and not self._is_short:
            count = sum(partition is not None for partition in mine)
            _log.info("%s has its whole share: owns %d partitions", self._worker, count)

    async def assure(self, claim: Claim) -> bool:
        """Whether the claim stood a moment ago, at a time after this call at the latest; if not, it is given
        up. False, too, if the broker cannot say while the partition is handed back: nobody waits for that.

        Asks the broker only if this worker was paused, or its connection lost, since it last looked: within
        its presence time-out, and over one connection, nobody can have taken it for dead.
        """
        while not claim.is_lost and not self._looked_a_moment_ago():
            if await self.verify(claim):
                break
            if not claim.is_open:
                return False
            await asyncio.sleep(RETRY_PAUSE)
        return not claim.is_lost

    def _looked_a_moment_ago(self) -> bool:
        is_recent = asyncio.get_running_loop().time() - self._looked_at < ASSURANCE
        # What is sent while the connection is away is delivered after it, when a successor may have spoken.
        is_same = self._ownership.is_connected and self._looked_over == self._ownership.reconnects
        return is_recent and is_same

    async def verify(self, claim: Claim) -> bool:
        """Finds out whether a claim still stands, and gives it up if not; False if the broker cannot say."""
        try:
            owners = await self._ownership.owners()
        except (BrokerUnavailable, BrokerRefused):
            return False
        if not _stands(claim, owners.get(claim.partition)) and not claim.is_lost:
            self._lose(claim)
        return True

    async def release_all(self) -> None:
        """Hands every partition back: what runs may finish within the grace time."""
        under_way = list(self._releases.values())
        async with asyncio.TaskGroup() as tasks:
            for partition in self.claims.keys() - self._releases.keys():
                tasks.create_task(self._release(self.claims[partition], self._grace))
        await asyncio.gather(*under_way)
        await self._remove_own()
        await self._presence.announce()

    async def _give_up(self, surplus: dict[PartitionKey, Owner]) -> None:
        """What was let go of while the broker was away: nobody takes over from a worker that is alive."""
        left = [
            owner.consumer
            for partition, owner in surplus.items()
            if owner.worker == self._worker and partition not in self.claims
        ]
        for consumer in left:
            await self._ownership.remove(consumer)
        if left:
            await self._presence.announce()

    async def _take(self, vacant: dict[PartitionKey, Owner | None]) -> None:
        """Claims partitions that nobody has, or that a dead worker has."""
        if not vacant:
            return
        for owner in {owner.worker for owner in vacant.values() if owner is not None}:
            taken = [label(key) for key, held in vacant.items() if held is not None and held.worker == owner]
            _log.info(
                "%s takes %d partitions over from %s: %s", self._worker, len(taken), owner, ", ".join(taken)
            )
        tenures = await asyncio.gather(
            *(self._claim(*item) for item in vacant.items()), return_exceptions=True
        )
        failures = [tenure for tenure in tenures if isinstance(tenure, BaseException)]
        for partition, tenure in zip(vacant, tenures, strict=True):
            if isinstance(tenure, Tenure):
                claim = Claim(partition, tenure, UNKNOWN_HORIZON)
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
        await self._presence.announce()

    async def _settles(self, claim: Claim, patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                await self._mailboxes.settled(claim)
        except TimeoutError:
            return False
        return True


def _stands(claim: Claim, owner: Owner | None) -> bool:
    return owner is not None and owner.consumer == claim.tenure.consumer
