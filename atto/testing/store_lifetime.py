"""How sessions come, are found, and go: the part of the contract on `put`, `delete` and `sessions`.

Stores differ in whose clock tells the time of a commit, so cut-offs are far in the past or in the future.
"""

# ruff: noqa: D102 - the names of the tests are their sentences

import asyncio
import itertools
from datetime import UTC, datetime, timedelta, timezone

import pytest
from msgspec.structs import replace

from atto.protocol.errors import ConcurrentWrite, SessionGone, StoreError
from atto.protocol.messages import Message
from atto.protocol.sessions import RECENT_RUNS, Continuation, RunRecord, Snapshot
from atto.stores.base import SessionStore
from atto.testing.store_checks import StoreTests, bare, committed, holds, load
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

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def _run(run_id: str, version: int, begin: int = 0, end: int = 0) -> RunRecord:
    return RunRecord(run_id=run_id, version=version, begin=begin, end=end)


def _soon() -> datetime:
    """Later than any commit so far, by whatever clock."""
    return datetime.now(timezone(timedelta(hours=5))) + timedelta(hours=1)


class LifetimeContract(StoreTests):
    """The promises of `SessionStore.put`, `delete` and `sessions`, one test each."""

    async def test_what_is_put_is_there_as_it_was(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        marks = [number * len(EVERY_MESSAGE) // RECENT_RUNS for number in range(RECENT_RUNS + 1)]
        runs = tuple(
            RunRecord(
                run_id=f"run {ODD_TEXT} {number}",
                version=300 + 3 * number,
                begin=begin,
                end=end,
                **ODD_RECORD,
            )
            for number, (begin, end) in enumerate(itertools.pairwise(marks))
        )
        snapshot = Snapshot(
            session=ODD_TEXT[:60],
            version=400,
            messages=EVERY_MESSAGE,
            state=ODD_STATE,
            runs=runs,
            records=JOURNAL,
            continuation=CONTINUATION,
        )
        put = await store.put(snapshot)
        assert bare(put) == snapshot
        await holds(other_store, snapshot)
        put.state.clear()
        await holds(store, snapshot)

    @pytest.mark.parametrize("size", [10, 5_000])
    async def test_a_long_history_is_put_and_gone_on_with(
        self, store: SessionStore, other_store: SessionStore, size: int
    ) -> None:
        made = Snapshot(session="s")
        for number in range(300):
            made = made.after(commit(f"run-{number}", "q" * size, f"{number}" * (size // 2), n=number))
        snapshot = await store.put(made)
        await holds(other_store, made)
        for number in range(60):
            snapshot = await store.save(snapshot, commit(f"more-{number}", "q" * size, "a"))
        await holds(other_store, snapshot)
        assert (snapshot.version, len(snapshot.messages)) == (360, 720)

    async def test_what_was_put_is_saved_upon_with_and_without_its_token(self, store: SessionStore) -> None:
        made = Snapshot(session="s").after(commit("run-1"))
        await store.put(made)
        second = await store.save(made, commit("run-2"))
        with pytest.raises(ConcurrentWrite):
            await store.save(made, commit("stale"))
        await holds(store, await store.save(second, commit("run-3")))

    @pytest.mark.parametrize("messages", [(), (Message.user("hi"), Message.assistant("hello"))])
    async def test_a_history_from_elsewhere_may_have_no_runs(
        self, store: SessionStore, messages: tuple[Message, ...]
    ) -> None:
        put = await store.put(Snapshot(session="s", version=7, messages=messages))
        await holds(store, put)
        saved = await store.save(put, commit("run"))
        assert (saved.version, len(saved.messages), len(saved.runs)) == (8, len(messages) + 2, 1)
        await holds(store, saved)

    async def test_a_put_on_a_session_that_is_there_changes_nothing(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        saved = await committed(store, "s", 2)
        for snapshot in (saved, bare(saved), Snapshot(session="s", version=1)):
            with pytest.raises(ConcurrentWrite, match="there already"):
                await other_store.put(snapshot)
            await holds(store, saved)
        await holds(store, await store.save(saved, commit("run-3")))

    async def test_of_racing_puts_and_saves_one_wins(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        made = Snapshot(session="s").after(commit("put", "x" * 20_000))
        calls = [handle.put(made) for handle in (store, other_store) for _ in range(4)]
        calls += [store.save(Snapshot(session="s"), commit(f"run-{number}")) for number in range(4)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        (winner,) = [result for result in results if isinstance(result, Snapshot)]
        assert sum(isinstance(result, ConcurrentWrite) for result in results) == len(calls) - 1
        await holds(other_store, winner)

    async def test_a_session_put_again_after_a_delete_is_another_one(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        saved = await committed(store, "s", 3)
        await store.delete("s")
        put = await other_store.put(saved)
        assert bare(put) == bare(saved)
        with pytest.raises(ConcurrentWrite):
            await store.save(saved, commit("from before"))
        await holds(store, await store.save(put, commit("run-4")))

    @pytest.mark.parametrize(
        "snapshot",
        [
            Snapshot(session="s"),
            Snapshot(session="s", version=-1),
            Snapshot(session="s", version=1, runs=(_run("a", 1), _run("b", 1))),
            Snapshot(session="s", version=1, runs=(_run("a", 1), _run("b", 2))),
            Snapshot(session="s", version=1, runs=(_run("a", 1, 0, 1),)),
            Snapshot(
                session="s",
                version=2,
                messages=EVERY_MESSAGE[:2],
                runs=(_run("a", 1, 0, 2), _run("b", 2, 1, 2)),
            ),
            Snapshot(session="s", version=1, messages=(Message.user("\ud800"),)),
            Snapshot(session="s", version=1, state={"bad": object()}),
        ],
        ids=["no commit", "negative", "two runs", "future", "end", "order", "text", "state"],
    )
    async def test_what_is_no_committed_session_cannot_be_put(
        self, store: SessionStore, snapshot: Snapshot
    ) -> None:
        with pytest.raises(StoreError):
            await store.put(snapshot)
        assert await store.load("s") is None

    async def test_a_deleted_session_is_gone(self, store: SessionStore, other_store: SessionStore) -> None:
        await store.delete("nobody")
        await committed(store, "s", 10)
        await committed(store, "other", 1)
        for _ in range(2):
            await store.delete("s")
            assert await other_store.load("s") is None
        assert (await load(store, "other")).version == 1

    async def test_a_deleted_session_can_be_created_again(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        for life in range(3):
            saved = await committed(store, "s", life + 1, text=f"life {life}")
            assert saved.version == life + 1
            await holds(other_store, saved)
            await other_store.delete("s")

    async def test_writers_from_before_a_delete_lose(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        first = await committed(store, "s", 1)
        second = await store.save(first, commit("run-2"))
        await other_store.delete("s")
        stale = (first, second, bare(first), bare(second))
        for base in stale:
            with pytest.raises(ConcurrentWrite):
                await store.save(base, commit("from before"))
        assert await store.load("s") is None

        again = await store.save(Snapshot(session="s"), commit("run-1 again"))
        for base in (*stale, Snapshot(session="s")):
            with pytest.raises(ConcurrentWrite):
                await store.save(base, commit("from before"))
        await holds(other_store, again)
        await holds(store, await other_store.save(again, commit("run-2 again")))

    async def test_a_save_on_a_deleted_session_is_told_that_it_is_gone(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        first = await committed(store, "s", 1)
        second = await store.save(first, commit("run-2"))
        with pytest.raises(ConcurrentWrite) as moved_on:
            await store.save(first, commit("stale"))
        assert not isinstance(moved_on.value, SessionGone)
        await other_store.delete("s")
        with pytest.raises(SessionGone):
            await store.save(second, commit("from before"))
        await committed(other_store, "s", 2, text="another")
        with pytest.raises(SessionGone):
            await store.save(second, commit("from before"))

    async def test_journal_records_go_with_their_session(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        waiting = replace(commit("run"), ended="suspended", records=LARGE_JOURNAL, continuation=CONTINUATION)
        await holds(other_store, await store.save(Snapshot(session="s"), waiting))
        await other_store.delete("s")
        saved = await store.save(Snapshot(session="s"), commit("anew"))
        assert (saved.records, saved.continuation) == ((), Continuation())
        await holds(other_store, saved)

    async def test_a_delete_among_racing_saves_leaves_no_mixture(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        for round_ in range(10):
            base = await committed(store, "s", 2, text="old")
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
                await holds(store, await store.save(loaded, commit("run-2")))
                await store.delete("s")

    async def test_delete_tells_whether_there_was_a_session(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        await committed(store, "s", 1)
        assert [await other_store.delete(name) for name in ("nobody", "s", "s")] == [False, True, False]
        await committed(store, "s", 1)
        deletes = (handle.delete("s") for handle in (store, other_store) for _ in range(4))
        assert sorted(await asyncio.gather(*deletes)) == [False] * 7 + [True]

    async def test_a_session_that_was_used_since_is_not_deleted_as_idle(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        saved = await committed(store, "saved", 2)
        put = await store.put(replace(saved, session="put"))
        for name in ("saved", "put", "nobody"):
            assert not await other_store.delete(name, idle_since=_LONG_AGO)
        await holds(store, await store.save(saved, commit("run-3")))
        await holds(store, await store.save(put, commit("run-3")))

    async def test_an_idle_session_is_deleted(self, store: SessionStore, other_store: SessionStore) -> None:
        saved = await committed(store, "saved", 2)
        await store.put(replace(saved, session="put"))
        for name in ("saved", "put"):
            assert await other_store.delete(name, idle_since=_soon())
            assert not await other_store.delete(name, idle_since=_soon())
            assert await store.load(name) is None
        with pytest.raises(ConcurrentWrite):
            await store.save(saved, commit("from before"))
        assert (await committed(store, "saved", 1)).version == 1

    async def test_a_commit_beside_a_delete_of_what_is_idle_is_kept(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        snapshot = await committed(store, "s", 1)
        for number in range(10):
            snapshot, deleted = await asyncio.gather(
                store.save(snapshot, commit(f"beside-{number}")),
                other_store.delete("s", idle_since=_LONG_AGO),
            )
            assert not deleted
            await holds(other_store, snapshot)

    async def test_idle_sessions_are_listed(self, store: SessionStore, other_store: SessionStore) -> None:
        for name in ("c", "a", "b", "gone"):
            await committed(store, name, 1)
        await store.delete("gone")
        assert [name async for name in other_store.sessions(idle_since=_LONG_AGO)] == []
        assert [name async for name in other_store.sessions(idle_since=_soon())] == ["a", "b", "c"]
        assert [name async for name in store.sessions(after="a", idle_since=_soon())] == ["b", "c"]

    async def test_sessions_may_be_deleted_while_they_are_listed(self, store: SessionStore) -> None:
        names = {f"{number:04}" for number in range(700)}
        for name in names:
            await store.put(Snapshot(session=name, version=1))
        listed = [name async for name in store.sessions() if await store.delete(name)]
        assert listed == sorted(names)
        assert [name async for name in store.sessions()] == []

    async def test_sessions_are_listed_page_by_page_in_the_order_of_their_code_points(
        self, store: SessionStore, other_store: SessionStore
    ) -> None:
        assert [name async for name in store.sessions()] == []
        names = {*SESSION_IDS, "\uffff", "\U00010000", *(f"user-{number}" for number in range(230))}
        for name in names:
            await committed(store, name, 1)
        for gone in ("user-0", "user-100"):
            await store.delete(gone)
        listed = [name async for name in other_store.sessions()]
        assert listed == sorted(names - {"user-0", "user-100"})
        for start in (0, 1, 57, len(listed) - 1):
            rest = [name async for name in store.sessions(after=listed[start])]
            assert rest == listed[start + 1 :]
        for after in ("user-0", "user-", "\U0010ffff"):
            rest = [name async for name in store.sessions(after=after)]
            assert rest == [name for name in listed if name > after]
