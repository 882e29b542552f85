"""Synchronous tools beside the event loop."""

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from atto.protocol.errors import ToolFailed

R = TypeVar("R")


async def in_thread(work: Callable[[], R], name: str) -> R:
    """What `work` returns or raises, from a thread that sees the caller's context variables.

    A thread cannot be stopped: when the caller is cancelled it stays behind until `work` ends, and its
    outcome is dropped. Therefore each call has a daemon thread of its own, not one of the loop's pool:
    hung tools use up no pool that others (name resolution among them) wait for, and hold up no exit.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[R] = loop.create_future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(work)
        except StopIteration as error:  # no future can carry one
            failure = ToolFailed(_describe(error))
            failure.__cause__ = error
            post(outcome.set_exception, failure)
        except BaseException as error:  # noqa: BLE001 - raised again where `outcome` is awaited
            post(outcome.set_exception, error)
        else:
            post(outcome.set_result, result)

    def post(settle: Callable[[Any], None], value: Any) -> None:
        with suppress(RuntimeError):  # the loop has closed: nobody waits any more
            loop.call_soon_threadsafe(_unless_done, outcome, settle, value)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await outcome


def _unless_done(outcome: asyncio.Future[Any], settle: Callable[[Any], None], value: Any) -> None:
    if not outcome.done():
        settle(value)


def _describe(error: StopIteration) -> str:
    return f"StopIteration: {error}" if error.args else "StopIteration"
