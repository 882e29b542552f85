"""Structured logs of the command line. The library logs through `logging`, under `atto.*`."""

import logging
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from types import NoneType
from typing import Any

from atto.protocol.errors import OperatorError, StoreError
from atto_workers.terminal import shown, shown_text
from atto_workers.turn_context import current_turn

_OF_SEVERAL_LINES = {"exception", "stack"}


def configure_logs(*, level: str = "info", as_json: bool = False, quotes: bool = False) -> None:
    """Writes log lines to stderr: JSON objects, or lines for people. Raises `ValueError` for no level.

    `quotes`: tracebacks hold what the exceptions say, prompts and arguments included; for development only.

    `level` is that of `atto.*`; other libraries are heard from warnings on, since at debug level SDKs write
    whole requests, prompts and all.
    """
    import structlog  # noqa: PLC0415 - part of the extra `cli`

    shared: list[structlog.types.Processor] = [
        _with_turn,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # rich's would show local variables: prompts, and credentials.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    # ExtraAdder is left out: what is logged is said in the message, and nothing else can slip in.
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    final.append(structlog.processors.format_exc_info if quotes else _with_exception)
    if not as_json:  # which escapes by itself
        final.append(_escaped)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*final, renderer])
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("atto").setLevel(level.upper())


def _with_turn(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**current_turn(), **line}


def _escaped(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What a line quotes must not steer the terminal, nor pass for another line."""
    return {
        key: value
        if isinstance(value, (int, float, NoneType))
        else (shown_text if key in _OF_SEVERAL_LINES else shown)(str(value))
        for key, value in line.items()
    }


def _with_exception(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    exc_info = line.pop("exc_info", None)  # as `logging` has it: type, value, traceback
    error = exc_info[1] if exc_info else None
    if error is not None:
        line["exception"] = "\n".join(_lines(error, set()))
    return line


def _lines(error: BaseException, seen: set[int]) -> Iterator[str]:
    """A traceback without what the exceptions say, which may quote a prompt or a tool's arguments.

    Nothing is lost by that: the run's events and the dead letter hold it.
    """
    seen.add(id(error))
    former = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if former is not None and id(former) not in seen:
        yield from _lines(former, seen)
    members: tuple[BaseException, ...] = getattr(error, "exceptions", ())  # of a group
    for member in members:
        yield from _lines(member, seen)
    yield from (line.rstrip("\n") for line in traceback.format_tb(error.__traceback__))
    # These two speak of the deployment, never of a session's content.
    is_harmless = isinstance(error, (OperatorError, StoreError))
    yield f"{type(error).__name__}: {error}" if is_harmless else type(error).__name__
