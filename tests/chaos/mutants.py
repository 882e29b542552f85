"""Workers broken on purpose, each in one way. A checker that does not catch them all proves nothing."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec

from atto.protocol.errors import ConcurrentWrite
from atto.protocol.events import StepRestarted
from atto.stores.nats_kv import NatsKvStore
from atto_workers import ownership
from atto_workers.run import commit, log, runner
from tests.chaos.fail_points import replaced


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
        await self._ending._jetstream.connection.flush()

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


def reused_consumer_name() -> None:
    """All owners of a partition call its consumer the same: a former one still pulls and acknowledges."""
    replaced(ownership, "secrets", lambda _: SimpleNamespace(token_hex=lambda _: "same"))
    replaced(
        ownership.Ownership,
        "claim",
        lambda claim: lambda self, partition: claim(_nameless(self), partition),
    )


def _nameless(own: ownership.Ownership) -> ownership.Ownership:
    twin = ownership.Ownership.__new__(ownership.Ownership)
    twin.__dict__.update(own.__dict__, _worker="anyone")
    return twin


def no_voiding() -> None:
    """Listeners are never told to drop what was said of a step."""

    def wrapper(append: Any) -> Any:
        def appended(self: log.RunLog, event: Any, *encoded: Any) -> None:
            if not isinstance(event, StepRestarted):
                append(self, event, *encoded)

        return appended

    replaced(log.RunLog, "append", wrapper)


MUTANTS: dict[str, Callable[[], None]] = {
    "no_cas": no_cas,
    "ack_before_save": ack_before_save,
    "no_run_record": no_run_record,
    "reused_consumer_name": reused_consumer_name,
    "no_voiding": no_voiding,
}

FAULTS: dict[str, dict[str, float]] = {
    "no_cas": {"stall": 3, "stop": 1},
    "ack_before_save": {"fail_before_save": 2, "kill": 1},
    "no_run_record": {"fail_after_save": 1},
    "reused_consumer_name": {"stop": 2, "kill": 1},
    "no_voiding": {"kill": 1},
}
"""The faults that expose each mutant soonest."""

CAUGHT_BY: dict[str, set[str]] = {
    "no_cas": {"a_run_is_committed_once", "versions_count_commits", "state_is_what_the_tools_made_it"},
    "ack_before_save": {"no_accepted_turn_is_lost"},
    "no_run_record": {"a_run_is_committed_once"},
    "reused_consumer_name": {"no_accepted_turn_is_lost", "commits_are_in_the_order_of_acceptance"},
    "no_voiding": {"listeners_heard_what_was_committed"},
}
"""The checks of which at least one must see what is broken."""
