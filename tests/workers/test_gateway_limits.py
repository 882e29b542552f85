"""Who may ask a model, and when: in turn, within the limits, and slower where the provider says so."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto_workers import LimitPolicy
from atto_workers.gateway.limits import Limiter, Paused
from atto_workers.gateway.window import WINDOW, Window
from tests.workers.virtual_time import in_virtual_time, now, settle


def limiter(**options) -> Limiter:
    return Limiter(LimitPolicy(**options), now)


async def granted(limits: Limiter, order: list, name, tokens: int = 0):
    slot = await limits.acquire(tokens)
    order.append((name, now()))
    return slot


def test_slots_are_handed_out_in_turn():
    async def scenario():
        limits, order = limiter(concurrency=2), []
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(granted(limits, order, name)) for name in "abcde"]
            await settle()
            assert (limits.active, limits.waiting) == (2, 3)
            for task in tasks:
                limits.release(await task)
        assert [name for name, _ in order] == list("abcde")
        assert (limits.active, limits.waiting) == (0, 0)

    in_virtual_time(scenario)


def test_a_pause_sends_away_those_who_would_not_wait_for_so_long():
    async def scenario():
        limits = limiter(concurrency=1)
        busy = await limits.acquire()
        patient = asyncio.create_task(limits.acquire(patience=20))
        impatient, leaving = (asyncio.create_task(limits.acquire(patience=19)) for _ in range(2))
        await settle()
        limits.pause(20)
        leaving.cancel()  # at the same time
        await settle()
        with pytest.raises(Paused) as sent_away:
            await impatient
        assert (sent_away.value.seconds, leaving.cancelled(), limits.waiting) == (20, True, 1)
        with pytest.raises(Paused):
            await limits.acquire(patience=19)
        limits.release(busy)
        limits.release(await patient)
        assert (now(), limits.active, limits.waiting) == (20, 0, 0)

    in_virtual_time(scenario)


def test_nobody_overtakes_a_waiter_that_needs_more():
    async def scenario():
        limits, order = limiter(tokens_per_minute=100), []
        limits.release(await granted(limits, order, "first", 60))
        async with asyncio.TaskGroup() as group:
            group.create_task(granted(limits, order, "large", 80))
            await settle()
            group.create_task(granted(limits, order, "small", 10))
        assert order == [("first", 0.0), ("large", WINDOW), ("small", WINDOW)]

    in_virtual_time(scenario)


def test_a_cancelled_waiter_leaves_at_once_and_lets_those_behind_it_in():
    async def scenario():
        limits, order = limiter(tokens_per_minute=100), []
        await granted(limits, order, "first", 60)
        large = asyncio.create_task(granted(limits, order, "large", 80))
        await settle()
        small = asyncio.create_task(granted(limits, order, "small", 10))
        await settle()
        assert limits.waiting == 2
        large.cancel()
        await settle()
        assert (order[-1], limits.waiting) == (("small", 0.0), 0)
        await asyncio.gather(large, small, return_exceptions=True)

    in_virtual_time(scenario)


def test_a_cancelled_waiter_in_the_middle_leaves_at_once():
    async def scenario():
        limits, order = limiter(concurrency=1), []
        slot = await limits.acquire()
        waiters = [asyncio.create_task(granted(limits, order, name)) for name in "abc"]
        await settle()
        waiters[1].cancel()
        await settle()
        assert limits.waiting == 2
        limits.release(slot)
        limits.release(await waiters[0])
        await waiters[2]
        assert [name for name, _ in order] == ["a", "c"]

    in_virtual_time(scenario)


def test_a_slot_that_comes_together_with_a_cancellation_is_given_on():
    async def scenario():
        limits, order = limiter(concurrency=1), []
        slot = await limits.acquire()
        first = asyncio.create_task(granted(limits, order, "first"))
        second = asyncio.create_task(granted(limits, order, "second"))
        await settle()
        limits.release(slot)  # `first` has the slot, but has not run yet
        first.cancel()
        await asyncio.gather(first, second, return_exceptions=True)
        assert first.cancelled()
        assert [name for name, _ in order] == ["second"]
        assert limits.active == 1

    in_virtual_time(scenario)


def test_requests_a_minute():
    async def scenario():
        limits, order = limiter(requests_per_minute=3), []
        for name in range(7):
            limits.release(await granted(limits, order, name))
            await asyncio.sleep(1)
        return [time for _, time in order]

    assert in_virtual_time(scenario) == pytest.approx([0, 1, 2, 60, 61, 62, 120], abs=1e-3)


def test_tokens_a_minute_are_corrected_by_what_was_used():
    async def scenario():
        limits, order = limiter(tokens_per_minute=100), []
        limits.release(await granted(limits, order, "guessed too high", 90), tokens=20)
        limits.release(await granted(limits, order, "guessed too low", 70), tokens=99)
        limits.release(await granted(limits, order, "next", 10), tokens=10)
        return order

    assert in_virtual_time(scenario) == [("guessed too high", 0), ("guessed too low", 0), ("next", WINDOW)]


def test_a_call_larger_than_the_limit_goes_alone():
    async def scenario():
        limits, order = limiter(tokens_per_minute=100), []
        for name in "abc":
            limits.release(await granted(limits, order, name, 1000))
        return [time for _, time in order]

    assert in_virtual_time(scenario) == pytest.approx([0, 60, 120], abs=1e-3)


def test_a_call_that_was_not_made_does_not_count():
    async def scenario():
        limits = limiter(requests_per_minute=1)
        slot = await limits.acquire()
        limits.unused(slot)
        limits.release(slot)
        await limits.acquire()
        return now()

    assert in_virtual_time(scenario) == 0


@given(
    limit=st.integers(1, 20),
    uses=st.lists(st.tuples(st.floats(0, 40), st.integers(0, 25), st.integers(0, 25)), max_size=60),
)
def test_no_minute_has_more_than_the_limit(limit, uses):
    """The model: all uses, with what they came to, added up for every window that begins with one."""
    window, time, made = Window(limit), 0.0, []
    for gap, amount, actual in uses:
        time += gap
        while (wait := window.wait(time, amount)) > 0:
            assert wait <= WINDOW + 1e-6
            time += wait
        in_window = [entry.amount for entry in made if entry.time > time - WINDOW + 1e-5]
        assert sum(in_window) + min(amount, limit) <= limit
        entry = window.use(time, amount)
        window.correct(entry, actual, time)
        made.append(entry)


def test_a_429_halves_the_concurrency_once_for_all_that_were_let_in_before():
    async def scenario():
        limits = limiter(concurrency=64)
        slots = [await limits.acquire() for _ in range(40)]
        for slot in slots:
            limits.throttled(slot)
            limits.release(slot)
        assert limits.concurrency == 20
        slots = [await limits.acquire() for _ in range(20)]
        waiter = asyncio.create_task(limits.acquire())
        await settle()
        assert limits.waiting == 1
        limits.throttled(slots[0])
        assert limits.concurrency == 10
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)

    in_virtual_time(scenario)


def test_the_concurrency_never_falls_below_one_and_grows_back_by_rounds():
    async def scenario():
        limits = limiter(concurrency=4)
        for _ in range(5):
            slot = await limits.acquire()
            limits.throttled(slot)
            limits.release(slot)
        assert limits.concurrency == 1
        grown = []
        for _ in range(12):
            limits.answered()
            grown.append(limits.concurrency)
        assert grown[0] == 2
        assert grown == sorted(grown)
        assert grown[-1] == 4

    in_virtual_time(scenario)


def test_without_a_bound_of_ours_a_429_makes_one():
    async def scenario():
        limits = limiter(concurrency=None)
        slots = [await limits.acquire() for _ in range(1000)]
        assert limits.concurrency is None
        limits.throttled(slots[0])
        assert limits.concurrency == 500

    in_virtual_time(scenario)


def test_adapting_can_be_turned_off():
    async def scenario():
        limits = limiter(concurrency=8, adapt=False)
        limits.throttled(await limits.acquire())
        assert limits.concurrency == 8

    in_virtual_time(scenario)


def test_a_pause_holds_up_everybody_and_the_longest_counts():
    async def scenario():
        limits, order = limiter(), []
        limits.pause(7)
        limits.pause(3)
        async with asyncio.TaskGroup() as group:
            for name in "abc":
                group.create_task(granted(limits, order, name))
        return order

    assert in_virtual_time(scenario) == [("a", 7), ("b", 7), ("c", 7)]


def test_a_pause_in_the_middle_of_a_wait_counts():
    async def scenario():
        limits, order = limiter(requests_per_minute=1), []
        limits.release(await limits.acquire())
        waiter = asyncio.create_task(granted(limits, order, "a"))
        await asyncio.sleep(30)
        limits.pause(50)
        await waiter
        return now()

    assert in_virtual_time(scenario) == pytest.approx(80)


@pytest.mark.parametrize("name", ["concurrency", "requests_per_minute", "tokens_per_minute"])
def test_a_limit_that_lets_nothing_through_is_refused(name):
    with pytest.raises(ValueError):
        LimitPolicy(**{name: 0})
