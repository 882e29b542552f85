"""A bar on stderr for what takes long, where there is a terminal to see it."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from atto_workers.cli.console import Terminal


@contextmanager
def progress(what: str, total: int) -> Generator[Callable[[], None]]:
    """Yields what to call after each of `total` pieces of work."""
    console = Terminal(stderr=True)
    if not console.is_terminal:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(what, total=total)
        yield lambda: bars.advance(bar)
