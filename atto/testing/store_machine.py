"""Random histories of a session, replayed on a store and on a model of what a store is."""

import secrets
from typing import Any, Literal, NamedTuple

from hypothesis import strategies as st
from msgspec.structs import replace

from atto.protocol.errors import ConcurrentWrite
from atto.protocol.events import StateChange
from atto.protocol.messages import Message, ToolCallPart
from atto.protocol.sessions import Commit, Continuation, Ended, Record, Snapshot
from atto.stores.base import SessionStore


class Step(NamedTuple):
    """One call. `handle`: through which handle of the store. `base`: for a save or a fence, how many
    snapshots back its base lies; the oldest is version 0. `token`: whether the base still has its token.
    """

    call: Literal["save", "fence", "load", "delete"]
    handle: int = 0
    base: int = 0
    token: bool = True
    messages: tuple[Message, ...] = ()
    change: StateChange = StateChange()
    ended: Ended | None = "completed"
    records: tuple[Record, ...] = ()
    drop_records: bool = False
    continuation: Continuation | None = None


class _Known(NamedTuple):
    """A snapshot that the store gave, in which life of the session (each delete ends one), and after how many
    fences.
    """

    snapshot: Snapshot
    life: int
    fences: int


class StoreMachine:
    """Runs histories on a store and on a model, and raises where they differ.

    `handles` are all on the same data.
    """

    def __init__(self, *handles: SessionStore) -> None:
        self._handles = handles

    async def run(self, history: list[Step]) -> None:
        """Replays one history on a session of its own, which is deleted in the end."""
        replay = _Replay(f"history-{secrets.token_hex(8)}")
        for number, step in enumerate(history):
            store = self._handles[step.handle % len(self._handles)]
            await replay.step(store, step, f"run-{number}")
            for handle in self._handles:
                await replay.check(handle)
        await self._handles[0].delete(replay.session)


class _Replay:
    """The model: a session is its newest snapshot, or None; only the newest may be saved upon."""

    def __init__(self, session: str) -> None:
        self.session = session
        self._newest: Snapshot | None = None
        self._life = 0
        self._fences = 0
        self._known = [_Known(Snapshot(session=session), -1, 0)]

    async def step(self, store: SessionStore, step: Step, run_id: str) -> None:
        match step.call:
            case "delete":
                await store.delete(self.session)
                self._newest, self._life = None, self._life + 1
            case "load":
                loaded = await store.load(self.session)
                if loaded is not None:
                    self._known.append(_Known(loaded, self._life, self._fences))
            case "save":
                added = Commit(
                    run_id=run_id,
                    messages=step.messages if step.ended else (),
                    change=step.change if step.ended else StateChange(),
                    ended=step.ended,
                    records=step.records,
                    drop_records=step.drop_records,
                    continuation=step.continuation,
                )
                await self._save(store, self._base(step), added)
            case "fence":
                await self._fence(store, self._base(step))

    async def check(self, store: SessionStore) -> None:
        loaded = await store.load(self.session)
        assert (loaded and replace(loaded, token=None)) == self._newest

    def _base(self, step: Step) -> _Known:
        known = self._known[-1 - step.base % len(self._known)]
        return known if step.token else known._replace(snapshot=replace(known.snapshot, token=None))

    async def _save(self, store: SessionStore, base: _Known, added: Commit) -> None:
        try:
            saved = await store.save(base.snapshot, added)
        except ConcurrentWrite:
            assert not self._is_newest(base), "the newest snapshot was refused as a base"
            return
        assert self._is_newest(base), "a stale snapshot was accepted as a base"
        self._newest = replace(base.snapshot.after(added), token=None)
        assert replace(saved, token=None) == self._newest
        self._known.append(_Known(saved, self._life, self._fences))

    async def _fence(self, store: SessionStore, base: _Known) -> None:
        try:
            fenced = await store.fence(base.snapshot)
        except ConcurrentWrite:
            assert not self._is_newest(base), "the newest snapshot was refused as a base"
            return
        assert self._is_newest(base), "a stale snapshot was fenced"
        self._newest = replace(base.snapshot, token=None)
        assert replace(fenced, token=None) == self._newest
        self._fences += 1
        self._known.append(_Known(fenced, self._life, self._fences))

    def _is_newest(self, base: _Known) -> bool:
        snapshot = base.snapshot
        is_new = snapshot.version == 0 and snapshot.token is None
        if self._newest is None or is_new:
            return self._newest is None and is_new
        if base.life != self._life or snapshot.version != self._newest.version:
            return False
        # Without a token only the run ids tell what came from this session.
        return bool(snapshot.runs) if snapshot.token is None else base.fences == self._fences


def histories() -> st.SearchStrategy[list[Step]]:
    """Mostly saves on the newest snapshot, through any handle; now and then anything else."""
    newest = _saves(st.just(0))
    stale = _saves(st.integers(1, 30))
    bases = st.sampled_from([0, 0, 0, 1, 5])
    fence = st.tuples(_HANDLES, bases, st.booleans()).map(lambda drawn: Step("fence", *drawn))
    load = _HANDLES.map(lambda handle: Step("load", handle))
    delete = _HANDLES.map(lambda handle: Step("delete", handle))
    return st.lists(newest | newest | newest | stale | fence | load | delete, max_size=30)


def _saves(base: st.SearchStrategy[int]) -> st.SearchStrategy[Step]:
    return st.builds(
        Step,
        st.just("save"),
        _HANDLES,
        base,
        token=st.booleans(),
        messages=st.lists(_messages(), max_size=4).map(tuple),
        change=_changes(),
        ended=st.sampled_from(("completed", "completed", "suspended", "failed", None)),
        records=st.just(()) | st.just(()) | _records(),
        drop_records=st.booleans(),
        continuation=st.none() | st.none() | st.builds(Continuation, agent=st.text(max_size=5)),
    )


def _records() -> st.SearchStrategy[tuple[Record, ...]]:
    record = st.dictionaries(st.text(max_size=5), _json(), max_size=3)
    large = st.integers(1, 30_000).map(lambda size: {"large": "x" * size})
    return st.lists(record | large, max_size=3).map(tuple)


_HANDLES = st.integers(0, 7)


def _json() -> st.SearchStrategy[Any]:
    numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    leaves = st.none() | st.booleans() | numbers | st.text(max_size=20)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=8,
    )


def _messages() -> st.SearchStrategy[Message]:
    text = st.text(max_size=100)
    arguments = st.dictionaries(st.text(max_size=5), _json(), max_size=3)
    name = st.text(max_size=5)
    call = st.builds(
        ToolCallPart, id=name, name=name, arguments=arguments, native=_json(), malformed=st.none()
    )
    return st.one_of(
        text.map(Message.user),
        text.map(Message.assistant),
        call.map(lambda part: Message("assistant", (part,))),
    )


def _changes() -> st.SearchStrategy[StateChange]:
    keys = st.sampled_from(["a", "b", "c", ""])
    return st.builds(
        StateChange,
        set=st.dictionaries(keys, _json(), max_size=3),
        unset=st.lists(keys, max_size=2).map(tuple),
    )
