"""Mutants of commits and of what is read of them."""

import asyncio
from typing import Any

import msgspec

from atto.protocol.errors import ConcurrentWrite, StoreError
from atto.stores.nats_kv import NatsKvStore
from atto_workers import snapshots
from atto_workers.run import commit, runner
from tests.chaos.fail_points import replaced

LATE = 0.3
"""Seconds by which a commit comes too late."""
ONE_IN = 20
"""Saves, of which one is told to have failed."""


def no_cas() -> None:
    """A save that finds another version than it started from writes all the same."""

    def wrapper(save: Any) -> Any:
        async def saved(self: NatsKvStore, base: Any, added: Any) -> Any:
            while True:
                try:
                    return await save(self, base, added)
                except ConcurrentWrite:
                    base = await self.load(base.session)

        return saved

    replaced(NatsKvStore, "save", wrapper)


def ack_before_save() -> None:
    """A turn is acknowledged when it begins."""

    async def early(self: runner.TurnRunner, attempt: Any, *_: Any) -> None:
        await self._ending.acknowledge(attempt.delivery)
        await self._ending._acknowledgements._jetstream.connection.flush()

    def wrapper(execute: Any) -> Any:
        async def executed(*arguments: Any) -> Any:
            await early(*arguments)
            return await execute(*arguments)

        return executed

    replaced(runner.TurnRunner, "_execute", wrapper)


def no_run_record() -> None:
    """What was committed before is not remembered: a turn that comes again is run again."""

    def wrapper(load: Any) -> Any:
        async def loaded(*arguments: Any, **keywords: Any) -> Any:
            snapshot = await load(*arguments, **keywords)
            return msgspec.structs.replace(snapshot, runs=())

        return loaded

    replaced(commit, "load", wrapper)


def end_before_save() -> None:
    """A run is told to be completed before it is committed."""
    pending: dict[str, asyncio.Task[Any]] = {}

    def wrapper(save: Any) -> Any:
        async def late(store: Any, base: Any, *arguments: Any, **keywords: Any) -> Any:
            await asyncio.sleep(LATE)
            return await save(store, base, *arguments, **keywords)

        async def saved(store: Any, base: Any, added: Any, *arguments: Any, **keywords: Any) -> Any:
            before = pending.get(base.session)
            base = base if before is None else await before
            pending[base.session] = asyncio.create_task(late(store, base, added, *arguments, **keywords))
            return base.after(added)

        return saved

    replaced(commit, "save", wrapper)


def save_taken_for_failed() -> None:
    """Now and then a commit is made, and the run told to have failed."""
    count = 0

    def wrapper(save: Any) -> Any:
        async def saved(*arguments: Any, **keywords: Any) -> Any:
            nonlocal count
            snapshot = await save(*arguments, **keywords)
            count += 1
            if count % ONE_IN == 0:
                raise StoreError("who knows")
            return snapshot

        return saved

    replaced(commit, "save", wrapper)


def stale_snapshots() -> None:
    """Whoever asks for a session is told of it as it was when somebody first asked."""

    class Stale:
        def __init__(self, store: Any) -> None:
            self._store = store
            self._known: dict[str, Any] = {}

        async def load(self, session: str) -> Any:
            if session not in self._known:
                self._known[session] = await self._store.load(session)
            return self._known[session]

    def wrapper(enter: Any) -> Any:
        async def entered(self: snapshots.Snapshots) -> Any:
            self._store = Stale(self._store)
            return await enter(self)

        return entered

    replaced(snapshots.Snapshots, "__aenter__", wrapper)
