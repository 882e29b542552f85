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
from atto.protocol.sessions import RECENT_RUNS, Commit, Continuation, Ended, Record, RunRecord, Snapshot
from atto.stores.base import SessionStore
from atto.testing.store_checks import bare, committed, holds, load
from atto.testing.store_lifetime import LifetimeContract
from atto.testing.store_machine import Step, StoreMachine, histories
from atto.testing.store_samples import (
    CONTINUATION,
    EVERY_MESSAGE,
    JOURNAL,
    LARGE_JOURNAL,
    ODD_RECORD,
    ODD_STATE,
    ODD_TEXT,
    SESSION_IDS,
    commit,
)

_RACERS = 16
_LOOP_ITERATIONS = (*range(16), 20, 25, 32, 40, 50, 64, 80, 100, 128)


class StoreContract(LifetimeContract):
    """The promises of `SessionStore`, one test each; those on how sessions come and go are inherited."""

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
        await holds(other_store, saved)

    async def test_each_commit_adds_to_the_history_and_one_to_the_version(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        snapshot = Snapshot(session="s")
        for number in range(1, 51):
            added = commit(f"run-{number}", f"question {number}", f"answer {number}", last=number)
            expected = snapshot.after(added)
            snapshot = await store.save(snapshot, added)
            assert bare(snapshot) == expected
            assert snapshot.version == number
        await holds(other_store, snapshot)

    async def test_a_loaded_snapshot_can_be_saved_upon(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        await committed(store, "s", 3)
        loaded = await load(other_store, "s")
        await holds(store, await other_store.save(loaded, commit("run-4")))

    async def test_a_snapshot_that_lost_its_token_can_be_saved_upon(self, store: SessionStore) -> None:
        snapshot = await committed(store, "s", 3)
        await holds(store, await store.save(bare(snapshot), commit("run-4")))
        with pytest.raises(ConcurrentWrite):
            await store.save(bare(snapshot), commit("run-5"))

    async def test_every_kind_of_message_comes_back_as_it_went(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        saved = await store.save(Snapshot(session="s"), Commit(run_id="run", messages=EVERY_MESSAGE))
        assert saved.messages == EVERY_MESSAGE
        await holds(other_store, saved)

    async def test_odd_text_comes_back_as_it_went(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        added = commit(f"run {ODD_TEXT[:20]}", ODD_TEXT, ODD_TEXT, **ODD_STATE)
        saved = await store.save(Snapshot(session="s"), added)
        assert saved.messages == added.messages
        assert saved.state == ODD_STATE
        await holds(other_store, saved)

    async def test_empty_values_come_back_as_they_went(self, store: SessionStore) -> None:
        first = await store.save(Snapshot(session="s"), Commit(run_id="run-1", messages=()))
        assert (first.version, first.messages, first.state) == (1, (), {})
        empty: dict[str, Any] = {"": "", "list": [], "object": {}, "null": None, "zero": 0, "false": False}
        messages = (Message("assistant", ()), Message.user(""), Message.assistant(""))
        change = StateChange(set=empty)
        second = await store.save(first, Commit(run_id="run-2", messages=messages, change=change))
        assert (second.messages, second.state) == (messages, empty)
        await holds(store, second)

    async def test_a_session_of_megabytes(self, store: SessionStore, other_store: SessionStore) -> None:
        snapshot = Snapshot(session="s")
        for number in range(30):
            added = commit(f"run-{number}", "q" * 1_000, f"{number}" * 50_000, large="x" * 50_000)
            snapshot = await store.save(snapshot, added)
        await holds(other_store, snapshot)

    async def test_a_message_of_600_kilobytes(self, store: SessionStore, other_store: SessionStore) -> None:
        snapshot = await store.save(Snapshot(session="s"), commit("run-1", "read this", "ü" * 300_000))
        snapshot = await store.save(snapshot, commit("run-2", "b" * 600_000, "thanks"))
        await holds(other_store, snapshot)
        await holds(other_store, await store.save(snapshot, commit("run-3")))

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
            await holds(store, snapshot)

    async def test_recent_runs_are_remembered_with_their_answers(self, store: SessionStore) -> None:
        snapshot = Snapshot(session="s")
        for number in range(RECENT_RUNS + 8):
            snapshot = await store.save(snapshot, commit(f"run-{number}", "hi", f"answer {number}"))
        for known in (snapshot, await load(store, "s")):
            assert len(known.runs) == RECENT_RUNS
            assert known.record("run-7") is None
            for number in range(8, RECENT_RUNS + 8):
                record = known.record(f"run-{number}")
                assert record is not None
                assert known.answer(record).text == f"answer {number}"

    @pytest.mark.parametrize("ended", ["completed", "suspended", "cancelled", "failed"])
    async def test_the_record_of_a_run_says_how_it_ended(
        self, store: SessionStore, other_store: SessionStore, ended: Ended
    ) -> None:
        base = await committed(store, "s", 3)
        told: dict[str, Any] = {**ODD_RECORD, "ended": ended}
        saved = await store.save(base, Commit(run_id="run", messages=EVERY_MESSAGE[:2], **told))
        assert saved.record("run") == RunRecord(run_id="run", version=4, begin=6, end=8, **told)
        await holds(other_store, saved)
        empty = await store.save(saved, Commit(run_id="next", **told))
        assert empty.record("next") == RunRecord(run_id="next", version=5, begin=8, end=8, **told)
        await holds(other_store, empty)

    async def test_journal_records_are_appended_and_dropped(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        snapshot = await committed(store, "s", 2)
        expected: tuple[Record, ...] = ()
        for number in range(12):
            added = tuple({"step": number, "text": "x" * 3_000} for _ in range(number % 3)) + JOURNAL
            checkpoint = Commit(run_id="run", ended=None, records=added)
            snapshot, expected = await store.save(snapshot, checkpoint), expected + added
            assert (snapshot.version, snapshot.records) == (3 + number, expected)
            assert (snapshot.record("run"), len(snapshot.messages)) == (None, 4)
            await holds(other_store, snapshot)
        replaced = await store.save(
            snapshot, replace(commit("run"), drop_records=True, records=LARGE_JOURNAL[1:])
        )
        assert replaced.records == LARGE_JOURNAL[1:]
        await holds(other_store, replaced)
        record = replaced.record("run")
        assert record is not None
        assert (record.version, record.begin, record.end) == (15, 4, 6)
        dropped = await other_store.save(replaced, replace(commit("last"), drop_records=True))
        assert dropped.records == ()
        await holds(store, dropped)

    async def test_large_journal_records(self, store: SessionStore, other_store: SessionStore) -> None:
        waiting = Commit(run_id="run", ended=None, records=LARGE_JOURNAL)
        first = await store.save(Snapshot(session="s"), waiting)
        assert first.records == LARGE_JOURNAL
        await holds(other_store, first)
        second = await other_store.save(first, replace(waiting, records=JOURNAL + LARGE_JOURNAL))
        assert second.records == LARGE_JOURNAL + JOURNAL + LARGE_JOURNAL
        await holds(store, second)
        last = await store.save(second, replace(commit("run"), drop_records=True))
        await holds(other_store, last)
        await holds(store, await other_store.save(last, commit("next")))

    async def test_where_the_next_run_goes_on_from_is_replaced_or_left(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        snapshot = await committed(store, "s", 1)
        for number, (continuation, expected) in enumerate(
            (
                (None, Continuation()),
                (CONTINUATION, CONTINUATION),
                (None, CONTINUATION),
                (Continuation(),) * 2,
            )
        ):
            snapshot = await store.save(snapshot, replace(commit(f"run-{number}"), continuation=continuation))
            assert snapshot.continuation == expected
            await holds(other_store, snapshot)

    async def test_a_stale_checkpoint_changes_nothing(self, store: SessionStore) -> None:
        first = await committed(store, "s", 1)
        checkpoint = Commit(run_id="run", ended=None, records=JOURNAL)
        second = await store.save(first, checkpoint)
        with pytest.raises(ConcurrentWrite):
            await store.save(first, checkpoint)
        await holds(store, second)

    async def test_a_checkpoint_with_messages_or_changes_is_refused(self, store: SessionStore) -> None:
        base = await committed(store, "s", 1)
        for bad in (commit("run"), Commit(run_id="run", change=StateChange(unset=("a",)))):
            with pytest.raises(StoreError):
                await store.save(base, replace(bad, ended=None))
        await holds(store, base)

    async def test_a_stale_save_changes_nothing(self, store: SessionStore, other_store: SessionStore) -> None:
        first = await committed(store, "s", 1)
        second = await other_store.save(first, commit("run-2", "the second", "wins", winner=2))
        for stale in (Snapshot(session="s"), first):
            with pytest.raises(ConcurrentWrite):
                await store.save(stale, commit("run-3", "the third", "loses", winner=3))
            await holds(store, second)
        await holds(other_store, await store.save(second, commit("run-4")))

    @pytest.mark.parametrize("version", [0, 1, 40])
    async def test_a_fence_shuts_out_who_holds_the_old_token(
        self, store: SessionStore, other_store: SessionStore, version: int
    ) -> None:
        base = await committed(store, "s", version)
        fenced = await other_store.fence(base)
        assert bare(fenced) == bare(base)
        await holds(store, base)
        for stale in (store.save(base, commit("late")), store.fence(base)):
            with pytest.raises(ConcurrentWrite):
                await stale
        await holds(store, base)
        await holds(store, await other_store.save(fenced, commit("next")))

    @pytest.mark.parametrize("version", [0, 3])
    async def test_what_is_loaded_after_a_fence_can_be_saved_upon_until_the_next_one(
        self, store: SessionStore, other_store: SessionStore, version: int
    ) -> None:
        await store.fence(await committed(store, "s", version))
        loaded = await load(other_store, "s")
        again = await store.fence(await load(store, "s"))
        with pytest.raises(ConcurrentWrite):
            await other_store.save(loaded, commit("late"))
        await holds(other_store, await store.save(again, commit("next")))

    async def test_a_fence_on_what_has_moved_on_changes_nothing(self, store: SessionStore) -> None:
        first = await committed(store, "s", 1)
        second = await store.save(first, commit("run-2"))
        for stale in (Snapshot(session="s"), first, bare(first)):
            with pytest.raises(ConcurrentWrite):
                await store.fence(stale)
        await holds(store, await store.save(second, commit("run-3")))

    @pytest.mark.parametrize("version", [0, 2])
    async def test_a_fenced_session_can_be_deleted_and_its_writers_lose(
        self, store: SessionStore, version: int
    ) -> None:
        fenced = await store.fence(await committed(store, "s", version))
        assert await store.delete("s")
        assert await store.load("s") is None
        with pytest.raises(ConcurrentWrite):
            await store.save(fenced, commit("from before"))
        await holds(store, await store.save(Snapshot(session="s"), commit("anew")))

    @pytest.mark.parametrize("version", [0, 2])
    async def test_of_a_fence_and_a_racing_save_one_wins(
        self, store: SessionStore, other_store: SessionStore, version: int
    ) -> None:
        for number in range(_RACERS):
            base = await committed(store, f"s-{number}", version)
            fence, save = await asyncio.gather(
                other_store.fence(base), store.save(base, commit("racer")), return_exceptions=True
            )
            winner = save if isinstance(fence, ConcurrentWrite) else fence
            assert isinstance(winner, Snapshot)
            assert isinstance(save, ConcurrentWrite) != isinstance(fence, ConcurrentWrite)
            await holds(store, winner)

    @pytest.mark.parametrize("version", [0, 1, 5])
    async def test_of_racing_saves_one_wins(
        self, store: SessionStore, other_store: SessionStore, version: int
    ) -> None:
        base = await committed(store, "s", version)
        racers = [
            (store, other_store)[number % 2].save(base, commit(f"racer-{number}", "mine", f"{number}"))
            for number in range(_RACERS)
        ]
        results = await asyncio.gather(*racers, return_exceptions=True)
        winners = [result for result in results if isinstance(result, Snapshot)]
        losers = [result for result in results if isinstance(result, ConcurrentWrite)]
        assert (len(winners), len(losers)) == (1, _RACERS - 1)
        await holds(store, winners[0])

    async def test_what_cannot_be_stored_is_refused_and_changes_nothing(self, store: SessionStore) -> None:
        base = await committed(store, "s", 1)
        deep: list[Any] = []
        for _ in range(1000):
            deep = [deep]
        for value in (object(), deep, "\ud800"):
            with pytest.raises(StoreError):
                await store.save(base, commit("run-2", bad=value))
            await holds(store, base)

    async def test_saving_leaves_the_base_as_it_was(self, store: SessionStore) -> None:
        base = await store.save(Snapshot(session="s"), commit("run-1", list=[1, 2], kept={"a": 1}))
        before = copy.deepcopy(bare(base))
        saved = await store.save(base, commit("run-2", list=[3]))
        assert bare(base) == before
        with pytest.raises(ConcurrentWrite):
            await store.save(base, commit("run-3", list=[4]))
        assert bare(base) == before
        await holds(store, saved)

    async def test_nothing_that_a_caller_changes_changes_the_store(self, store: SessionStore) -> None:
        value = {"list": [1]}
        saved = await store.save(Snapshot(session="s"), commit("run-1", value=value))
        value["list"].append(2)
        assert saved.state == {"value": {"list": [1]}}
        saved.state["value"]["list"].append(3)
        saved.state["new"] = True
        loaded = await load(store, "s")
        assert loaded.state == {"value": {"list": [1]}}
        loaded.state.clear()
        again = await store.save(loaded, commit("run-2", other=1))
        assert again.state == {"value": {"list": [1]}, "other": 1}
        await holds(store, again)

    @pytest.mark.parametrize("size", [10, 600_000])
    async def test_a_cancelled_save_leaves_the_old_or_the_new(self, store: SessionStore, size: int) -> None:
        for iterations in _LOOP_ITERATIONS:
            session = f"s-{iterations}"
            old = await committed(store, session, 1)
            added = commit("run-2", "x" * size, "y", n=2)
            task = asyncio.ensure_future(store.save(old, added))
            for _ in range(iterations):
                await asyncio.sleep(0)  # one iteration of the loop
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert bare(await load(store, session)) in (bare(old), old.after(added))
            await _saved_at_last(store, session, commit("run-3"))

    async def test_many_sessions_side_by_side(self, store: SessionStore, other_store: SessionStore) -> None:
        saved = await asyncio.gather(
            *(committed(store, f"s-{number}", 5, text=f"of {number}") for number in range(50))
        )
        await asyncio.gather(*(holds(other_store, snapshot) for snapshot in saved))

    @pytest.mark.parametrize("session", SESSION_IDS, ids=ascii)
    async def test_odd_session_ids(
        self, store: SessionStore, other_store: SessionStore, session: str
    ) -> None:
        others = [other for other in SESSION_IDS if other != session]
        saved = await committed(store, session, 2)
        await holds(other_store, saved)
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


async def _saved_at_last(store: SessionStore, session: str, added: Commit) -> None:
    """A cancelled save may still be on its way to the store and win once."""
    for _ in range(3):
        with contextlib.suppress(ConcurrentWrite):
            await holds(store, await store.save(await load(store, session), added))
            return
    pytest.fail("the store no longer takes saves")
