"""Structured logs of the command line. The library logs through `logging`, under `atto.*`."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

from atto_workers.turn_context import current_turn


def configure_logs(*, level: str = "info", as_json: bool = False) -> None:
    """Writes log lines to stderr: JSON objects, or lines for people. Raises `ValueError` for no level.

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
            # rich's tracebacks show local variables: prompts, and credentials.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    # ExtraAdder is left out: what is logged is said in the message, and nothing else can slip in.
    final: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if as_json:
        final.append(structlog.processors.format_exc_info)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*final, renderer])
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("atto").setLevel(level.upper())


def _with_turn(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**current_turn(), **line}
