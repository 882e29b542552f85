"""`atto workers` and `atto partitions`: who is here, who owns what, how far behind they are."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from atto.protocol.subjects import Subjects
from atto_workers.census import Census, PartitionView, WorkerView
from atto_workers.cli.options import BROKER, OUTPUT, Broker, Output

PERIOD = 1.0
"""Seconds between looks with `--watch`."""

_PIPED_WIDTH = 200  # columns, so that no line is cut

Watch = Annotated[bool, Parameter(negative="", help="Look again every second, until Ctrl-C.")]

_STYLES = {"member": "green", "leaving": "yellow", "silent": "red", "dead": "red"}


def workers(*, watch: Watch = False, broker: Broker = BROKER, output: Output = OUTPUT) -> None:
    """Lists the workers: who is here, what each owns, its lag (turns that wait) and turns in flight."""
    asyncio.run(_looked(broker, output, Census.workers, _workers_table, is_again=watch))


def partitions(*, watch: Watch = False, broker: Broker = BROKER, output: Output = OUTPUT) -> None:
    """Lists the partitions: who owns each, its lag (turns that wait) and turns in flight."""
    asyncio.run(_looked(broker, output, Census.partitions, _partitions_table, is_again=watch))


async def _looked(
    broker: Broker,
    output: Output,
    look: Callable[[Census], Awaitable[Sequence[msgspec.Struct]]],
    draw: Callable[[Sequence[Any]], Table],
    *,
    is_again: bool,
) -> None:
    console = Console()
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    async with broker.jetstream() as jetstream:
        census = Census(jetstream, Subjects(broker.namespace))
        views = await look(census)
        if output.as_json or not is_again or not console.is_terminal:
            while True:
                _print(console, output, views, draw)
                if not is_again:
                    return
                await asyncio.sleep(PERIOD)
                views = await look(census)
        with Live(draw(views), console=console, auto_refresh=False, screen=True) as live:
            while True:
                await asyncio.sleep(PERIOD)
                live.update(draw(await look(census)), refresh=True)


def _print(
    console: Console,
    output: Output,
    views: Sequence[msgspec.Struct],
    draw: Callable[[Sequence[Any]], Table],
) -> None:
    if not output.as_json:
        console.print(draw(views))
        return
    for view in views:
        output.show(view, "")


def _workers_table(views: Sequence[WorkerView]) -> Table:
    table = _table("worker", "status", "host", "pid", "agent", "partitions", "lag", "in flight")
    for view in views:
        status = f"[{_STYLES[view.status]}]{view.status}[/]"
        figures = (str(view.partitions), str(view.lag), str(view.in_flight))
        table.add_row(
            view.worker, status, escape(view.host), str(view.pid or ""), escape(view.agent), *figures
        )
    return table


def _partitions_table(views: Sequence[PartitionView]) -> Table:
    table = _table("partition", "worker", "since", "lag", "in flight")
    for view in views:
        name = "stray" if view.partition is None else str(view.partition)
        owner = view.worker or "[red]nobody[/]"
        since = "" if view.since is None else f"{view.since:%Y-%m-%d %H:%M:%S}"
        table.add_row(name, owner, since, str(view.lag), str(view.in_flight))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        is_number = column in {"partition", "pid", "partitions", "lag", "in flight"}
        table.add_column(column, justify="right" if is_number else "left", no_wrap=True)
    return table
