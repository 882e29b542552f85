"""`atto run`, `atto attach`, `atto cancel`."""

import asyncio
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from atto.protocol.events import (
    AnyEvent,
    RunCancelled,
    RunCompleted,
    RunFailed,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from atto_client import Client, Run
from atto_workers.cli.exits import FAILED
from atto_workers.cli.options import BROKER, Broker, show

Json = Annotated[bool, Parameter(name="--json", negative="")]


def run(session: str, text: str, *, broker: Broker = BROKER, as_json: Json = False) -> int:
    """Submits a turn and prints what comes of it. 0 if it completed, 1 if not."""

    async def work() -> int:
        async with Client(broker.nats, namespace=broker.namespace, **broker.options()) as client:
            return await _printed(await client.submit(session, text), as_json=as_json)

    return asyncio.run(work())


def attach(
    session: str, run_id: str, *, after: int = 0, broker: Broker = BROKER, as_json: Json = False
) -> int:
    """Prints the events of a run, those past and those to come."""

    async def work() -> int:
        async with Client(broker.nats, namespace=broker.namespace, **broker.options()) as client:
            return await _printed(client.attach(session, run_id, after=after), as_json=as_json)

    return asyncio.run(work())


def cancel(session: str, run_id: str, *, broker: Broker = BROKER, as_json: Json = False) -> int:
    """Asks for a run to be cancelled; no-op if it has ended."""

    async def work() -> None:
        async with Client(broker.nats, namespace=broker.namespace, **broker.options()) as client:
            await client.cancel(session, run_id)

    asyncio.run(work())
    show({"session": session, "run_id": run_id}, f"cancellation of {run_id} sent", as_json=as_json)
    return 0


async def _printed(run: Run, *, as_json: bool) -> int:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    last: AnyEvent | None = None
    async for last in run:
        if as_json:
            show(last, "", as_json=True)
        else:
            _print(console, last)
    return 0 if isinstance(last, RunCompleted) else FAILED


def _print(console: Console, event: AnyEvent) -> None:
    match event:
        case TextDelta():
            console.print(event.text, end="")
        case ToolStarted():
            console.print(f"\n-> {event.call.name}", style="cyan")
        case ToolCompleted():
            console.print(f"<- {event.name}{' failed' if event.is_error else ''}", style="cyan")
        case RunCompleted():
            console.print()
        case RunFailed():
            console.print(f"\nthe run failed ({event.code}): {event.message}", style="red")
        case RunCancelled():
            console.print("\nthe run was cancelled", style="yellow")
        case _:
            pass
