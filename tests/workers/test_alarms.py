"""Many deadlines on one timer."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from atto.broker.alarms import GRAIN, Alarms
from tests.workers.virtual_time import VirtualLoop, in_virtual_time, now


class Noted:
    """An alarm that notes when it rang."""

    def __init__(self, due: float) -> None:
        self.due = due
        self.rang: list[float] = []

    def ring(self) -> None:
        self.rang.append(now())


@given(st.lists(st.floats(0.0, 100.0), max_size=30))
def test_each_rings_once_when_it_is_due_whatever_the_order(dues: list[float]):
    async def scenario():
        alarms = Alarms()
        noted = [Noted(due) for due in dues]
        for alarm in noted:
            alarms.set(alarm)
        await asyncio.sleep(200)
        return noted

    for alarm in in_virtual_time(scenario):
        (rang,) = alarm.rang
        assert -0.0011 <= rang - alarm.due <= GRAIN + 0.001


def test_one_that_is_put_off_rings_late_and_one_that_is_hastened_early():
    async def scenario():
        alarms = Alarms()
        put_off, hastened = Noted(1.0), Noted(50.0)
        alarms.set(put_off)
        alarms.set(hastened)
        put_off.due = 30.0
        hastened.due = 10.0
        alarms.set(hastened)
        await asyncio.sleep(100)
        return put_off.rang, hastened.rang

    assert in_virtual_time(scenario) == ([30.0], [10.0])


def test_one_that_is_cleared_does_not_ring():
    async def scenario():
        alarms = Alarms()
        cleared, kept = Noted(1.0), Noted(1.0)
        alarms.set(cleared)
        alarms.set(kept)
        alarms.clear(cleared)
        alarms.clear(cleared)
        await asyncio.sleep(10)
        return cleared.rang, kept.rang

    assert in_virtual_time(scenario) == ([], [1.0])


def test_the_timer_goes_with_the_last_alarm():
    async def scenario():
        alarms = Alarms()
        alarm = Noted(1000.0)
        alarms.set(alarm)
        alarms.clear(alarm)
        await asyncio.sleep(1)

    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(scenario())
    assert loop.time() == 1.0


def test_an_alarm_may_set_another_one_as_it_rings():
    async def scenario():
        alarms = Alarms()
        second = Noted(2.0)

        class First(Noted):
            def ring(self) -> None:
                super().ring()
                alarms.set(second)

        first = First(1.0)
        alarms.set(first)
        await asyncio.sleep(10)
        return first.rang, second.rang

    assert in_virtual_time(scenario) == ([1.0], [2.0])
