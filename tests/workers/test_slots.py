"""Who gets a slot, in virtual time: nobody starves, whatever the others do."""

import asyncio
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from atto_workers import slots
from atto_workers.slots import DEBT_LIMIT, Slots
from tests.workers.virtual_time import in_virtual_time, now, settle


class Turn:
    """One use of a slot, and when it was."""

    def __init__(self, flow: str, came: float, lasts: float) -> None:
        self.flow, self.came, self.lasts = flow, came, lasts
        self.began: float | None = None
        self.order = 0
        self.ended: float | None = None
        self.held_then: dict[str, int] = {}


class Scene:
    """Turns that come, wait and run; `history` in the order in which they got their slots."""

    def __init__(self, limit: int) -> None:
        self.slots = Slots(limit)
        self.limit = limit
        self.held: dict[str, int] = defaultdict(int)
        self.history: list[Turn] = []
        self.waiting: set[Turn] = set()

    async def run(self, turn: Turn, *, gives_up: float | None = None) -> None:
        await asyncio.sleep(max(0.0, turn.came - now()))
        turn.came = now()
        self.waiting.add(turn)
        try:
            async with asyncio.timeout(gives_up):
                with await self.slots.acquire(turn.flow):
                    self.waiting.discard(turn)
                    turn.began, turn.order = now(), len(self.history)
                    turn.held_then = {flow: count for flow, count in self.held.items() if count}
                    self.history.append(turn)
                    self.held[turn.flow] += 1
                    assert sum(self.held.values()) <= self.limit
                    try:
                        await asyncio.sleep(turn.lasts)
                    finally:
                        self.held[turn.flow] -= 1
                        turn.ended = now()
        except TimeoutError:
            pass
        finally:
            self.waiting.discard(turn)


turns = st.builds(
    Turn,
    st.sampled_from("abcdefgh"),
    st.floats(0, 50).map(lambda x: round(x, 1)),
    st.sampled_from([0, 0.1, 1, 30]),
)


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 4), st.lists(turns, max_size=40), st.lists(st.none() | st.just(5.0), max_size=40))
def test_slots_are_shared_whoever_comes_and_gives_up(limit: int, given_turns: list[Turn], patience: list):
    async def scenario() -> Scene:
        scene = Scene(limit)
        patiences = dict(enumerate(patience))
        async with asyncio.TaskGroup() as tasks:
            for number, turn in enumerate(given_turns):
                tasks.create_task(scene.run(turn, gives_up=patiences.get(number)))
        assert scene.slots._free == limit  # nothing leaks
        assert not scene.slots._active
        assert not scene.slots._waiting
        return scene

    scene = in_virtual_time(scenario)
    for turn in scene.history:
        assert turn.began is not None
        for later in scene.history:
            # None is passed by one that came so much later.
            if turn.order > later.order and later.held_then.get(turn.flow, 0) == 0:
                assert later.came - turn.came <= DEBT_LIMIT
    if all(each is None for each in patience):
        assert len(scene.history) == len(given_turns)


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 4), st.lists(turns, max_size=40))
def test_none_gets_a_second_slot_while_another_has_none(limit: int, given_turns: list[Turn]):
    async def scenario() -> None:
        scene = Scene(limit)
        granted = scene.slots._grant

        def checked(flow):
            waiting = [each for each in scene.slots._active.values() if each.waiting]
            assert flow.held <= min((each.held for each in waiting), default=flow.held)
            return granted(flow)

        scene.slots._grant = checked
        async with asyncio.TaskGroup() as tasks:
            for turn in given_turns:
                tasks.create_task(scene.run(turn))

    in_virtual_time(scenario)


async def _always_back(scene: Scene, flow: str, lasts: float, until: float) -> list[Turn]:
    """A session that asks again as soon as it was answered."""
    done: list[Turn] = []
    while now() < until:
        turn = Turn(flow, now(), lasts)
        await scene.run(turn)
        done.append(turn)
    return done


def waits(history: list[Turn], *flows: str, since: float = 0.0) -> list[float]:
    return [turn.began - turn.came for turn in history if turn.flow in flows and turn.came >= since]


def test_slow_sessions_do_not_starve_the_others():
    """40 sessions whose turns take 10 s, on 8 slots; 5 whose turns take 0.1 s come later."""

    async def scenario() -> Scene:
        scene = Scene(8)
        async with asyncio.TaskGroup() as tasks:
            for number in range(40):
                tasks.create_task(_always_back(scene, f"slow {number}", 10.0, 600))
            await asyncio.sleep(1)
            for number in range(5):
                tasks.create_task(_always_back(scene, f"fast {number}", 0.1, 600))
        return scene

    scene = in_virtual_time(scenario)
    fast = waits(scene.history, *(f"fast {n}" for n in range(5)), since=100)
    slow = waits(scene.history, *(f"slow {n}" for n in range(40)), since=100)
    # First come first served makes a turn of 0.1 s wait for 40 / 8 rounds of 10 s, and so 45 s on average.
    assert sum(fast) / len(fast) < 6
    assert max(fast) <= 10.1  # until any slow turn ends
    assert len(fast) > 10 * 5
    assert max(slow) < 120  # nor are the slow ones starved
    used = sum(turn.lasts for turn in scene.history)
    assert used > 0.95 * 8 * 600  # no slot was left free


def test_a_flood_of_new_sessions_does_not_delay_those_that_return():
    async def scenario() -> Scene:
        scene = Scene(8)
        async with asyncio.TaskGroup() as tasks:
            for number in range(5):
                tasks.create_task(scene.run(Turn(f"old {number}", 0, 1)))
            for number in range(2_000):
                tasks.create_task(scene.run(Turn(f"new {number}", 10, 1)))
            for number in range(5):
                tasks.create_task(scene.run(Turn(f"old {number}", 12, 1)))
        return scene

    scene = in_virtual_time(scenario)
    assert max(waits(scene.history, *(f"old {n}" for n in range(5)))) <= 2
    assert sum(turn.flow.startswith("new") for turn in scene.history) == 2_000


def test_a_tenant_has_its_share_however_much_it_sends():
    async def scenario() -> Scene:
        scene = Scene(8)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(1_000):
                tasks.create_task(scene.run(Turn("tenant flood", 0, 1)))
            for number in range(4):
                tasks.create_task(_always_back(scene, f"other {number}", 1.0, 60))
        return scene

    scene = in_virtual_time(scenario)
    others = waits(scene.history, *(f"other {n}" for n in range(4)))
    assert max(others) <= 1
    assert len(others) >= 4 * 30
    busy = [turn for turn in scene.history if turn.flow == "tenant flood" and 2 <= turn.began < 60]
    assert len(busy) >= 4 * 56  # and what the others leave is the flood's


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(slots, "KNOWN", 100)

    async def scenario() -> Scene:
        scene = Scene(2)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_always_back(scene, "always", 0.5, 300))
            tasks.create_task(_always_back(scene, "tenant", 0.5, 300))
            tasks.create_task(_always_back(scene, "tenant", 0.7, 300))
            for number in range(1_000):
                tasks.create_task(scene.run(Turn(f"{number}", number / 10, 0.1)))
            await asyncio.sleep(250)
            await settle()
            assert len(scene.slots._heads) < 200
        return scene

    scene = in_virtual_time(scenario)
    assert len(scene.slots._known) <= 100


def test_a_slot_that_comes_free_as_the_first_in_line_is_cancelled_goes_to_the_next():
    async def scenario() -> None:
        slots = Slots(1)
        held = await slots.acquire("a")
        first, second = asyncio.create_task(slots.acquire("b")), asyncio.create_task(slots.acquire("c"))
        await settle()
        first.cancel()
        slots.release(held)
        grant = await second
        assert first.cancelled()
        assert list(slots._active) == ["c"]
        slots.release(grant)
        assert not slots._active

    in_virtual_time(scenario)
