"""`atto turns`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import App, Parameter

from atto.broker.connection import connected
from atto.broker.jetstream import JetStream
from atto.protocol.subjects import Subjects
from atto_workers.cli.options import BROKER, OUTPUT, Broker, Output, Session
from atto_workers.queued_turns import QueuedTurns
from atto_workers.terminal import shown

app = App(name="turns", help="Turns that were accepted and have not ended.")

Which = Annotated[
    str,
    Parameter(name="turn", help="Its number, as `ls` shows it, or its run id, unless that is a number."),
]


@app.command
def ls(*, session: Session | None = None, broker: Broker = BROKER, output: Output = OUTPUT) -> None:
    """Lists the turns that wait or run, oldest first."""

    async def work() -> None:
        async with _turns(broker) as turns:
            async for turn in turns.list(session):
                age = (datetime.now(UTC) - turn.time).total_seconds()
                where = "-" if turn.partition is None else turn.partition
                holder = "waits for a worker" if turn.worker is None else f"worker {turn.worker}"
                line = (
                    f"{turn.number}  partition {where}  {turn.token}  run {turn.run_id or '-'}  "
                    f"{age:.0f} s  {turn.size} B  {holder}  {turn.text}"
                )
                output.show(turn, shown(line))

    asyncio.run(work())


@app.command
def rm(which: Which, /, *, broker: Broker = BROKER, output: Output = OUTPUT) -> None:
    """Removes a turn for good; its run is stopped, if it runs, and its callers are told."""

    async def work() -> None:
        async with _turns(broker) as turns:
            removed = await turns.remove(int(which) if which.isdecimal() and which.isascii() else which)
        output.show(
            removed, shown(f"removed {removed.number}: run {removed.run_id or '-'} of {removed.token}")
        )

    asyncio.run(work())


@asynccontextmanager
async def _turns(broker: Broker) -> AsyncGenerator[QueuedTurns]:
    options: dict[str, Any] = {"name": "atto-turns", **broker.options()}
    async with (
        connected(broker.nats, on_reconnect=lambda: None, **options) as connection,
        JetStream(connection) as jetstream,
    ):
        yield QueuedTurns(jetstream, Subjects(broker.namespace))
