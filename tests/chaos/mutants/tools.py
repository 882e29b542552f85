"""Mutants of tool calls: whether they run, how often, under which key, and what is kept of them."""

import os
from typing import Any

from msgspec.structs import replace

from atto.agents import ToolContext
from atto.protocol.events import StateChange
from atto_workers.run import attempts, tool_calls
from tests.chaos.fail_points import replaced

ONE_IN = 10
"""Calls, of which one is not made."""


def begun_unsaid() -> None:
    """A call begins before anybody else knows of it."""

    async def at_once(*_: Any) -> None:
        """Nothing is waited for."""

    replaced(tool_calls.ToolCalls, "_confirm", lambda _: at_once)


def key_of_the_process() -> None:
    """A call that is repeated elsewhere has another key there."""
    key = ToolContext.idempotency_key.fget
    ToolContext.idempotency_key = property(lambda self: f"{key(self)}:{os.getpid()}")


def results_forgotten() -> None:
    """A new attempt does not know the results of calls that were completed."""
    _remembered(lambda event: None)


def changes_forgotten() -> None:
    """A new attempt does not know what completed calls changed in the state."""
    _remembered(lambda event: replace(event, change=StateChange()))


def results_exchanged() -> None:
    """The results of a step are told in the wrong order."""

    def wrapper(results: Any) -> Any:
        async def exchanged(*arguments: Any) -> Any:
            message = await results(*arguments)
            return replace(message, content=message.content[::-1])

        return exchanged

    replaced(tool_calls.ToolCalls, "results", wrapper)


def call_left_out() -> None:
    """Some calls are answered without a call."""
    count = 0

    def wrapper(outcome: Any) -> Any:
        async def left_out(self: tool_calls.ToolCalls, call: Any) -> Any:
            nonlocal count
            count += 1
            if call.name == "note" and count % ONE_IN == 0:
                return call.id, False, StateChange()
            return await outcome(self, call)

        return left_out

    replaced(tool_calls.ToolCalls, "_outcome", wrapper)


def _remembered(remember: Any) -> None:
    def wrapper(read: Any) -> Any:
        async def progress(*arguments: Any, **keywords: Any) -> Any:
            found = await read(*arguments, **keywords)
            for done in found.steps:
                kept = {call: remember(event) for call, event in done.results.items()}
                done.results.clear()
                done.results.update({call: event for call, event in kept.items() if event is not None})
            return found

        return progress

    replaced(attempts, "read_progress", wrapper)
