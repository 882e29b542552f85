"""What the log says of a tool that raised: where, in a line, and once the traceback of the author's code."""

import asyncio
import logging
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from weakref import WeakKeyDictionary

import atto
from atto.agents import Tool
from atto.protocol.errors import ToolError, ToolFailed

_LEADING = tuple(f"{package.__path__[0]}{os.sep}" for package in (atto, asyncio))

_log = logging.getLogger("atto.worker")
_told: WeakKeyDictionary[Tool[..., Any], set[tuple[str, str]]] = WeakKeyDictionary()


def log_failure(tool: Tool[..., Any], run_id: str, failure: ToolError, error: BaseException) -> None:
    """A warning of one line. The traceback of `error`, which is behind the failure, comes with the first of
    its kind and place, and at level debug with each.

    A model calls a broken tool again and again: what is new then is the run, not the traceback.
    """
    kind = type(error if isinstance(failure, ToolFailed) else failure).__name__
    where = _trimmed(error)
    told = _told.setdefault(tool, set())
    is_news = (kind, where) not in told
    told.add((kind, where))
    _log.warning(
        "tool %s of run %s failed: %s%s",
        *(tool.name, run_id, kind, where),
        exc_info=error if is_news or _log.isEnabledFor(logging.DEBUG) else None,
    )


def _trimmed(error: BaseException) -> str:
    """Takes the frames that lead to the tool out of the traceback; where it was raised."""
    places: list[str] = []
    for link in _chain(error):
        link.with_traceback(_authors(link.__traceback__))
        places += _place(link)
    return f" at {places[0]}" if places else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        context = None if error.__suppress_context__ else error.__context__
        error = context if error.__cause__ is None else error.__cause__  # one may be false, as a container is


def _authors(trace: TracebackType | None) -> TracebackType | None:
    """Without the leading frames that are ours, or asyncio's. None if there are no others."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_LEADING):
        trace = trace.tb_next
    return trace


def _place(error: BaseException) -> list[str]:
    """The innermost line in the file of the tool, if any; what that calls of others is in the traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == frames[0].filename]
    return [f"{Path(own[-1].filename).name}:{own[-1].lineno}"] if own else []
