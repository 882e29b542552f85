"""Who is here: by keys, and by who answers."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.broker.jetstream import JetStream
from atto.protocol.errors import BrokerUnavailable
from atto.protocol.subjects import Subjects
from atto_workers import Topology, presence
from atto_workers.presence import About, Presence, Renewals


async def test_a_key_that_a_broker_brought_back_from_the_dead_is_nobody(
    jetstream: JetStream, namespace: str, monkeypatch
):
    """Right after a reconnect a key counts even if nobody answers for it: its worker may be coming back."""
    monkeypatch.setattr(presence, "REUNION", 3600.0)
    await Topology(namespace, partitions=4).declare(jetstream)
    await jetstream.publish(f"$KV.{Subjects(namespace).members_bucket}.ghost", b"{}")
    async with Presence(
        jetstream, Subjects(namespace), "living", about=About.own("tester"), on_news=lambda: None
    ) as here:
        here._back_at = asyncio.get_running_loop().time()
        await here.beat()
        assert (await here.roll([])).members == {"living", "ghost"}
        monkeypatch.setattr(presence, "EXPIRED", 0.05)
        async with asyncio.timeout(5):
            while "ghost" in (await here.roll(["ghost"])).living:
                await here.beat()
        assert (await here.roll(["ghost"])).members == {"living"}


class Counting:
    """JetStream that counts what is asked, by the first tokens of its subject."""

    def __init__(self, jetstream: JetStream) -> None:
        self.asked = Counter[str]()
        self._jetstream = jetstream

    def __getattr__(self, name: str):
        return getattr(self._jetstream, name)

    async def request(self, subject: str, *arguments, **options) -> bytes:
        self.asked[subject.split(".")[1]] += 1
        return await self._jetstream.request(subject, *arguments, **options)


@contextlib.asynccontextmanager
async def present(jetstream: JetStream, namespace: str, workers: Iterable[str], on_news=lambda: None):
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                Presence(jetstream, Subjects(namespace), worker, about=About.own("tester"), on_news=on_news)
            )
            for worker in workers
        ]


@pytest.mark.parametrize("workers", [3, 30])
async def test_a_worker_asks_as_few_others_however_many_there_are(
    jetstream: JetStream, namespace: str, workers: int, monkeypatch
):
    monkeypatch.setattr(presence, "OVERDUE", 3600.0)  # a busy machine may be late
    await Topology(namespace, partitions=4).declare(jetstream)
    counting = Counting(jetstream)
    async with present(counting, namespace, [f"w{number}" for number in range(workers)]) as everybody:
        for one in everybody:
            await one.beat()
        first = everybody[0]
        counting.asked.clear()
        assert len((await first.roll([])).members) == workers
        assert counting.asked["worker"] == 0, "nobody is in doubt"
        await first._look_after(first._neighbours)
        assert counting.asked["worker"] == presence.NEIGHBOURS


async def test_the_neighbours_tell_of_one_that_is_gone(jetstream: JetStream, namespace: str):
    """Its key is there for seconds yet; those that do not watch it find out all the same."""
    await Topology(namespace, partitions=4).declare(jetstream)
    news = [asyncio.Event() for _ in range(5)]
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(20):
        workers = []
        for number, event in enumerate(news):
            [worker] = await stack.enter_async_context(
                present(jetstream, namespace, [f"w{number}"], on_news=event.set)
            )
            workers.append(worker)
            await worker.beat()
        for worker in workers:
            assert len((await worker.roll([])).members) == 5
        await workers[4].__aexit__(None, None, None)
        watching = [worker for worker in workers[:4] if "w4" in worker._neighbours]
        assert len(watching) == presence.NEIGHBOURS
        for event in news:
            event.clear()
        await watching[0]._look_after(watching[0]._neighbours)
        assert "w4" not in (await watching[0].roll(["w4"])).living
        for worker, event in zip(workers[:4], news, strict=False):
            if worker is not watching[0]:
                await event.wait()
                assert "w4" not in (await worker.roll(["w4"])).living


async def test_one_worker_can_be_told_that_there_is_something_for_it(jetstream: JetStream, namespace: str):
    await Topology(namespace, partitions=4).declare(jetstream)
    told, others = asyncio.Event(), asyncio.Event()
    async with (
        present(jetstream, namespace, ["a"], on_news=others.set) as [first],
        present(jetstream, namespace, ["b"], on_news=told.set),
        asyncio.timeout(10),
    ):
        await first.tell("b")
        await told.wait()
        assert not others.is_set()


class Deaf:
    """JetStream whose words arrive, and which hears no answer while `is_deaf`."""

    def __init__(self, jetstream: JetStream) -> None:
        self.is_deaf = True
        self.published = 0
        self._jetstream = jetstream

    def __getattr__(self, name: str):
        return getattr(self._jetstream, name)

    async def publish(self, *arguments, **options):
        self.published += 1
        return await self._answer(self._jetstream.publish(*arguments, **options))

    async def request(self, *arguments, **options):
        return await self._answer(self._jetstream.request(*arguments, **options))

    async def _answer(self, asking):
        answer = await asking
        if self.is_deaf:
            raise BrokerUnavailable("no answer")
        return answer


async def test_a_worker_that_hears_no_answer_renews_nothing_until_it_hears_one(
    jetstream: JetStream, namespace: str
):
    """It can still speak, as over a connection whose reader has died; others must be able to take over."""
    await Topology(namespace, partitions=4).declare(jetstream)
    deaf = Deaf(jetstream)
    async with present(deaf, namespace, ["deaf"]) as [worker]:
        for _ in range(3):
            with pytest.raises(BrokerUnavailable):
                await worker.beat()
            assert deaf.published == 1
            assert not worker.renewals.prove(time.monotonic())
        deaf.is_deaf = False
        await worker.beat()
        assert deaf.published == 2
        assert worker.renewals.prove(time.monotonic())


@given(
    st.lists(st.tuples(st.floats(0, 4), st.floats(0, 4)), min_size=1, max_size=8),
    st.integers(0, 7),
    st.floats(0, 4),
)
def test_renewals_prove_nothing_across_a_time_in_which_the_key_may_have_expired(steps, looked_after, asked):
    """Each step: seconds until a renewal leaves, and until its answer is there; the look follows one."""
    now, looked = 100.0, 0.0
    renewals = Renewals(clock=lambda: now)
    chain: list[tuple[float, float]] = []
    for number, (pause, taken) in enumerate(steps):
        sent = now = now + pause
        now += taken
        renewals.renewed(sent)
        chain.append((sent, now))
        looked = now if number == min(looked_after, len(steps) - 1) else looked
    now += asked
    if renewals.prove(looked):
        since = [(sent, heard) for sent, heard in chain if heard > looked]
        alive_from = max(sent for sent, heard in chain if heard <= looked)
        for sent, heard in since:
            # However late within its round trip the broker took it, the key had not expired by then.
            assert heard - alive_from < presence.TIME_OUT
            alive_from = sent
        assert now - alive_from < presence.TIME_OUT


@given(st.sets(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=12))
def test_everybody_has_watchers_in_the_ring(workers):
    watched = Counter(each for worker in workers for each in presence._after(worker, workers))
    expected = min(presence.NEIGHBOURS, len(workers) - 1)
    assert all(watched[worker] == expected for worker in workers)
