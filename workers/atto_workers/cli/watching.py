"""`atto workers` and `atto partitions`: who is here, who owns what, how far behind they are."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from atto.broker.jetstream import JetStream
from atto.protocol.errors import AttoError, BrokerUnavailable, TopologyMissing
from atto.protocol.subjects import Subjects
from atto_workers.census import Census, PartitionView, WorkerView
from atto_workers.cli.console import Terminal
from atto_workers.cli.failures import tell
from atto_workers.cli.options import BROKER, OUTPUT, Broker, Output
from atto_workers.terminal import shown

PERIOD = 1.0
"""Seconds between looks with `--watch`."""

_TIME = "%H:%M:%S"
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
    console = Terminal()
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    async with broker.jetstream() as jetstream:
        census = Census(jetstream, Subjects(broker.namespace))
        views = await look(census)
        if output.as_json or not is_again or not console.is_terminal:
            _print(console, output, views, draw)
        if not is_again:
            return
        # What the connection would log is said here, and not in the middle of a table.
        logging.getLogger("atto.broker").setLevel(logging.ERROR)
        async with aclosing(_again(jetstream, lambda: look(census))) as news:
            if output.as_json or not console.is_terminal:
                await _print_all(console, output, news, draw)
            else:
                await _redraw(console, views, news, draw)


async def _again(
    jetstream: JetStream, look: Callable[[], Awaitable[Sequence[msgspec.Struct]]]
) -> AsyncGenerator[Sequence[msgspec.Struct] | AttoError]:
    """A look every second, for ever, or why there was nothing to see: the broker may come back.

    Raises what it meets once the connection is closed for good.
    """
    while True:
        await asyncio.sleep(PERIOD)
        try:
            if jetstream.connection.is_reconnecting:  # a request would wait for the new connection
                raise BrokerUnavailable("the connection to the broker is lost")  # noqa: TRY301
            views = await look()
        except (BrokerUnavailable, TopologyMissing) as error:
            if jetstream.connection.is_closed:
                raise
            yield error
        else:
            yield views


async def _print_all(
    console: Terminal,
    output: Output,
    news: AsyncGenerator[Sequence[msgspec.Struct] | AttoError],
    draw: Callable[[Sequence[Any]], Table],
) -> None:
    """One look after another on stdout. What prevents them is told on stderr, once until it is over."""
    is_away = False
    async for seen in news:
        if not isinstance(seen, AttoError):
            _print(console, output, seen, draw)
        elif not is_away:
            tell(output, seen.code, f"{seen}; looking again every second")
        is_away = isinstance(seen, AttoError)


async def _redraw(
    console: Terminal,
    views: Sequence[msgspec.Struct],
    news: AsyncGenerator[Sequence[msgspec.Struct] | AttoError],
    draw: Callable[[Sequence[Any]], Table],
) -> None:
    """The last look, in place of the one before; below what prevents a newer one."""
    at = time.strftime(_TIME)
    with Live(draw(views), console=console, auto_refresh=False, screen=True) as live:
        async for seen in news:
            if isinstance(seen, AttoError):
                notice = Text(f"{shown(str(seen))}; looking again every second. As of {at}:", style="red")
                live.update(Group(notice, draw(views)), refresh=True)
            else:
                views, at = seen, time.strftime(_TIME)
                live.update(draw(views), refresh=True)


def _print(
    console: Terminal,
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
        status = Text(view.status, style=_STYLES[view.status])
        figures = (str(view.partitions), str(view.lag), str(view.in_flight))
        table.add_row(
            shown(view.worker), status, shown(view.host), str(view.pid or ""), shown(view.agent), *figures
        )
    return table


def _partitions_table(views: Sequence[PartitionView]) -> Table:
    table = _table("partition", "worker", "since", "lag", "in flight")
    for view in views:
        name = "stray" if view.partition is None else str(view.partition)
        owner = shown(view.worker) if view.worker else Text("nobody", style="red")
        since = "" if view.since is None else f"{view.since:%Y-%m-%d %H:%M:%S}"
        table.add_row(name, owner, since, str(view.lag), str(view.in_flight))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        is_number = column in {"partition", "pid", "partitions", "lag", "in flight"}
        table.add_column(column, justify="right" if is_number else "left", no_wrap=True)
    return table
