"""What every session store must do, as tests: subclass `StoreContract` and give it your store.

    import pytest
    from atto.testing.store_contract import StoreContract

    class TestMyStore(StoreContract):
        @pytest.fixture
        async def store(self):
            async with MyStore(...) as store:
                yield store  # a store without any sessions

`other_store` may be overridden as well: a second handle on the same data, as another process would have.
Needs `pytest`, `hypothesis`, and `pytest-asyncio` with `asyncio_mode = "auto"`. For failures that explain
themselves, call `pytest.register_assert_rewrite("atto.testing")` in `conftest.py`.
"""

# ruff: noqa: D102 - the names of the tests are their sentences

import asyncio
import contextlib
import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from atto.protocol.errors import ConcurrentWrite, InvalidSessionId, StoreError
from atto.protocol.events import StateChange
from atto.protocol.ids import MAX_ID_BYTES
from atto.protocol.messages import Message
from atto.protocol.sessions import RECENT_RUNS, Commit, Snapshot
from atto.stores.base import SessionStore
from atto.testing.store_machine import Step, StoreMachine, histories
from atto.testing.store_samples import EVERY_MESSAGE, ODD_STATE, ODD_TEXT, SESSION_IDS, commit

_RACERS = 16
_LOOP_ITERATIONS = (*range(16), 20, 25, 32, 40, 50, 64, 80, 100, 128)


class StoreContract:
    """The promises of `SessionStore`, one test each."""

    @pytest.fixture
    def store(self) -> SessionStore:
        """A store without any sessions. To be overridden."""
        raise NotImplementedError("override the fixture `store`: it gives the store to be tested, empty")

    @pytest.fixture
    def other_store(self, store: SessionStore) -> SessionStore:
        """Another handle on the data of `store`."""
        return store

    async def test_is_a_session_store(self, store: SessionStore) -> None:
        assert isinstance(store, SessionStore)

    async def test_a_session_without_a_commit_is_none(self, store: SessionStore) -> None:
        assert await store.load("nobody") is None

    async def test_the_first_save_creates_the_session(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        saved = await store.save(Snapshot(session="s"), commit("run-1", "hi", "hello", n=1))
        assert (saved.session, saved.version, saved.state) == ("s", 1, {"n": 1})
        assert [message.text for message in saved.messages] == ["hi", "hello"]
        await _holds(other_store, saved)

    async def test_each_commit_adds_to_the_history_and_one_to_the_version(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        snapshot = Snapshot(session="s")
        for number in range(1, 51):
            added = commit(f"run-{number}", f"question {number}", f"answer {number}", last=number)
            expected = snapshot.after(added)
            snapshot = await store.save(snapshot, added)
            assert _bare(snapshot) == expected
            assert snapshot.version == number
        await _holds(other_store, snapshot)

    async def test_a_loaded_snapshot_can_be_saved_upon(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        await _committed(store, "s", 3)
        loaded = await _load(other_store, "s")
        await _holds(store, await other_store.save(loaded, commit("run-4")))

    async def test_a_snapshot_that_lost_its_token_can_be_saved_upon(self, store: SessionStore) -> None:
        snapshot = await _committed(store, "s", 3)
        await _holds(store, await store.save(_bare(snapshot), commit("run-4")))
        with pytest.raises(ConcurrentWrite):
            await store.save(_bare(snapshot), commit("run-5"))

    async def test_every_kind_of_message_comes_back_as_it_went(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        saved = await store.save(Snapshot(session="s"), Commit(run_id="run", messages=EVERY_MESSAGE))
        assert saved.messages == EVERY_MESSAGE
        await _holds(other_store, saved)

    async def test_odd_text_comes_back_as_it_went(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        added = commit(f"run {ODD_TEXT[:20]}", ODD_TEXT, ODD_TEXT, **ODD_STATE)
        saved = await store.save(Snapshot(session="s"), added)
        assert saved.messages == added.messages
        assert saved.state == ODD_STATE
        await _holds(other_store, saved)

    async def test_empty_values_come_back_as_they_went(self, store: SessionStore) -> None:
        first = await store.save(Snapshot(session="s"), Commit(run_id="run-1", messages=()))
        assert (first.version, first.messages, first.state) == (1, (), {})
        empty: dict[str, Any] = {"": "", "list": [], "object": {}, "null": None, "zero": 0, "false": False}
        messages = (Message("assistant", ()), Message.user(""), Message.assistant(""))
        change = StateChange(set=empty)
        second = await store.save(first, Commit(run_id="run-2", messages=messages, change=change))
        assert (second.messages, second.state) == (messages, empty)
        await _holds(store, second)

    async def test_a_session_of_megabytes(self, store: SessionStore, other_store: SessionStore) -> None:
        snapshot = Snapshot(session="s")
        for number in range(30):
            added = commit(f"run-{number}", "q" * 1_000, f"{number}" * 50_000, large="x" * 50_000)
            snapshot = await store.save(snapshot, added)
        await _holds(other_store, snapshot)

    async def test_a_message_of_600_kilobytes(self, store: SessionStore, other_store: SessionStore) -> None:
        snapshot = await store.save(Snapshot(session="s"), commit("run-1", "read this", "ü" * 300_000))
        snapshot = await store.save(snapshot, commit("run-2", "b" * 600_000, "thanks"))
        await _holds(other_store, snapshot)
        await _holds(other_store, await store.save(snapshot, commit("run-3")))

    async def test_state_is_set_and_unset_by_key(self, store: SessionStore) -> None:
        snapshot = Snapshot(session="s")
        for number, (change, expected) in enumerate(
            (
                (StateChange(set={"a": 1, "b": {"c": [2]}}), {"a": 1, "b": {"c": [2]}}),
                (StateChange(set={"a": 2}), {"a": 2, "b": {"c": [2]}}),
                (StateChange(), {"a": 2, "b": {"c": [2]}}),
                (StateChange(unset=("a", "never set")), {"b": {"c": [2]}}),
                (StateChange(set={"a": 3, "d": 4}, unset=("a", "b")), {"d": 4}),
                (StateChange(unset=("d",)), {}),
            )
        ):
            snapshot = await store.save(snapshot, Commit(run_id=f"run-{number}", messages=(), change=change))
            assert snapshot.state == expected
            await _holds(store, snapshot)

    async def test_recent_runs_are_remembered_with_their_answers(self, store: SessionStore) -> None:
        snapshot = Snapshot(session="s")
        for number in range(RECENT_RUNS + 8):
            snapshot = await store.save(snapshot, commit(f"run-{number}", "hi", f"answer {number}"))
        for known in (snapshot, await _load(store, "s")):
            assert len(known.runs) == RECENT_RUNS
            assert known.record("run-7") is None
            for number in range(8, RECENT_RUNS + 8):
                record = known.record(f"run-{number}")
                assert record is not None
                assert known.answer(record).text == f"answer {number}"

    async def test_a_stale_save_changes_nothing(self, store: SessionStore, other_store: SessionStore) -> None:
        first = await _committed(store, "s", 1)
        second = await other_store.save(first, commit("run-2", "the second", "wins", winner=2))
        for stale in (Snapshot(session="s"), first):
            with pytest.raises(ConcurrentWrite):
                await store.save(stale, commit("run-3", "the third", "loses", winner=3))
            await _holds(store, second)
        await _holds(other_store, await store.save(second, commit("run-4")))

    @pytest.mark.parametrize("version", [0, 1, 5])
    async def test_of_racing_saves_one_wins(
        self, store: SessionStore, other_store: SessionStore, version: int
    ) -> None:
        base = await _committed(store, "s", version)
        racers = [
            (store, other_store)[number % 2].save(base, commit(f"racer-{number}", "mine", f"{number}"))
            for number in range(_RACERS)
        ]
        results = await asyncio.gather(*racers, return_exceptions=True)
        winners = [result for result in results if isinstance(result, Snapshot)]
        losers = [result for result in results if isinstance(result, ConcurrentWrite)]
        assert (len(winners), len(losers)) == (1, _RACERS - 1)
        await _holds(store, winners[0])

    async def test_what_cannot_be_stored_is_refused_and_changes_nothing(self, store: SessionStore) -> None:
        base = await _committed(store, "s", 1)
        deep: list[Any] = []
        for _ in range(1000):
            deep = [deep]
        for value in (object(), deep, "\ud800"):
            with pytest.raises(StoreError):
                await store.save(base, commit("run-2", bad=value))
            await _holds(store, base)

    async def test_saving_leaves_the_base_as_it_was(self, store: SessionStore) -> None:
        base = await store.save(Snapshot(session="s"), commit("run-1", list=[1, 2], kept={"a": 1}))
        before = copy.deepcopy(_bare(base))
        saved = await store.save(base, commit("run-2", list=[3]))
        assert _bare(base) == before
        with pytest.raises(ConcurrentWrite):
            await store.save(base, commit("run-3", list=[4]))
        assert _bare(base) == before
        await _holds(store, saved)

    async def test_nothing_that_a_caller_changes_changes_the_store(self, store: SessionStore) -> None:
        value = {"list": [1]}
        saved = await store.save(Snapshot(session="s"), commit("run-1", value=value))
        value["list"].append(2)
        assert saved.state == {"value": {"list": [1]}}
        saved.state["value"]["list"].append(3)
        saved.state["new"] = True
        loaded = await _load(store, "s")
        assert loaded.state == {"value": {"list": [1]}}
        loaded.state.clear()
        again = await store.save(loaded, commit("run-2", other=1))
        assert again.state == {"value": {"list": [1]}, "other": 1}
        await _holds(store, again)

    async def test_a_deleted_session_is_gone(self, store: SessionStore, other_store: SessionStore) -> None:
        await store.delete("nobody")
        await _committed(store, "s", 10)
        await _committed(store, "other", 1)
        for _ in range(2):
            await store.delete("s")
            assert await other_store.load("s") is None
        assert (await _load(store, "other")).version == 1

    async def test_a_deleted_session_can_be_created_again(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        for life in range(3):
            saved = await _committed(store, "s", life + 1, text=f"life {life}")
            assert saved.version == life + 1
            await _holds(other_store, saved)
            await other_store.delete("s")

    async def test_writers_from_before_a_delete_lose(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        first = await _committed(store, "s", 1)
        second = await store.save(first, commit("run-2"))
        await other_store.delete("s")
        stale = (first, second, _bare(first), _bare(second))
        for base in stale:
            with pytest.raises(ConcurrentWrite):
                await store.save(base, commit("from before"))
        assert await store.load("s") is None

        again = await store.save(Snapshot(session="s"), commit("run-1 again"))
        for base in (*stale, Snapshot(session="s")):
            with pytest.raises(ConcurrentWrite):
                await store.save(base, commit("from before"))
        await _holds(other_store, again)
        await _holds(store, await other_store.save(again, commit("run-2 again")))

    async def test_a_delete_among_racing_saves_leaves_no_mixture(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        for round_ in range(10):
            base = await _committed(store, "s", 2, text="old")
            await asyncio.gather(
                store.save(base, commit("old again", "old", "old")),
                other_store.delete("s"),
                store.save(Snapshot(session="s"), commit("new 1", "new", "new", size="x" * 100)),
                other_store.save(Snapshot(session="s"), commit("new 2", "new" * 10_000, "new")),
                return_exceptions=True,
            )
            loaded = await other_store.load("s")
            if loaded is not None:
                assert len({message.text[:3] for message in loaded.messages}) == 1, round_
                await _holds(store, await store.save(loaded, commit("run-2")))
                await store.delete("s")

    @pytest.mark.parametrize("size", [10, 600_000])
    async def test_a_cancelled_save_leaves_the_old_or_the_new(self, store: SessionStore, size: int) -> None:
        for iterations in _LOOP_ITERATIONS:
            session = f"s-{iterations}"
            old = await _committed(store, session, 1)
            added = commit("run-2", "x" * size, "y", n=2)
            task = asyncio.ensure_future(store.save(old, added))
            for _ in range(iterations):
                await asyncio.sleep(0)  # one iteration of the loop
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert _bare(await _load(store, session)) in (_bare(old), old.after(added))
            await _saved_at_last(store, session, commit("run-3"))

    async def test_many_sessions_side_by_side(self, store: SessionStore, other_store: SessionStore) -> None:
        saved = await asyncio.gather(
            *(_committed(store, f"s-{number}", 5, text=f"of {number}") for number in range(50))
        )
        await asyncio.gather(*(_holds(other_store, snapshot) for snapshot in saved))

    @pytest.mark.parametrize("session", SESSION_IDS, ids=ascii)
    async def test_odd_session_ids(
        self, store: SessionStore, other_store: SessionStore, session: str
    ) -> None:
        others = [other for other in SESSION_IDS if other != session]
        saved = await _committed(store, session, 2)
        await _holds(other_store, saved)
        assert [await store.load(other) for other in others] == [None] * len(others)
        assert [name async for name in store.sessions()] == [session]
        await store.delete(session)
        assert await other_store.load(session) is None

    @pytest.mark.parametrize("session", ["", "x" * (MAX_ID_BYTES + 1), "\ud800"], ids=ascii)
    async def test_what_is_no_session_id_is_refused(self, store: SessionStore, session: str) -> None:
        for call in (
            store.load(session),
            store.save(Snapshot(session=session), commit("run-1")),
            store.delete(session),
        ):
            with pytest.raises(InvalidSessionId):
                await call

    async def test_sessions_are_listed_page_by_page(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        assert [name async for name in store.sessions()] == []
        names = {*SESSION_IDS, *(f"user-{number}" for number in range(230))}
        for name in names:
            await _committed(store, name, 1)
        for gone in ("user-0", "user-100"):
            await store.delete(gone)
        listed = [name async for name in other_store.sessions()]
        assert sorted(listed) == sorted(names - {"user-0", "user-100"})
        for start in (0, 1, 57, len(listed) - 1):
            rest = [name async for name in store.sessions(after=listed[start])]
            assert rest == listed[start + 1 :]

    @settings(
        deadline=None,
        max_examples=100,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,  # each history has sessions of its own
            HealthCheck.differing_executors,  # each store's class inherits this test
            HealthCheck.too_slow,
        ],
    )
    @given(history=histories())
    async def test_random_histories(
        self, store: SessionStore, other_store: SessionStore, history: list[Step]
    ) -> None:
        await StoreMachine(store, other_store).run(history)


def _bare(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, token=None)


async def _load(store: SessionStore, session: str) -> Snapshot:
    loaded = await store.load(session)
    assert loaded is not None
    return loaded


async def _holds(store: SessionStore, snapshot: Snapshot) -> None:
    assert _bare(await _load(store, snapshot.session)) == _bare(snapshot)


async def _committed(store: SessionStore, session: str, commits: int, *, text: str = "hi") -> Snapshot:
    snapshot = Snapshot(session=session)
    for number in range(commits):
        snapshot = await store.save(snapshot, commit(f"run-{number + 1}", text, f"{text} {number}"))
    return snapshot


async def _saved_at_last(store: SessionStore, session: str, added: Commit) -> None:
    """A cancelled save may still be on its way to the store and win once."""
    for _ in range(3):
        with contextlib.suppress(ConcurrentWrite):
            await _holds(store, await store.save(await _load(store, session), added))
            return
    pytest.fail("the store no longer takes saves")
