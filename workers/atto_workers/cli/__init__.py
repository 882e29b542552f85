"""The command line `atto`."""

import os
import signal
import sys

_PACKAGES = {"cyclopts", "rich", "structlog", "prompt_toolkit", "watchfiles"}


def main() -> None:
    """The entry point: runs the command, and exits with its code."""
    try:
        from atto_workers.cli.app import run  # noqa: PLC0415 - its packages are an extra
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        sys.exit("atto: the command line is an extra: pip install 'atto-workers[cli]'")
    if os.getpid() == 1:
        # A container's first process has no default for signals: without this one it could only be killed.
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(run(sys.argv[1:]))
