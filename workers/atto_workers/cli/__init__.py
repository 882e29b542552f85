"""The command line `atto`."""

import sys


def main() -> None:
    """The entry point: runs the command, and exits with its code."""
    try:
        from atto_workers.cli.app import run  # noqa: PLC0415 - its packages are an extra
    except ModuleNotFoundError as error:
        if error.name not in {"cyclopts", "rich", "structlog"}:
            raise
        sys.exit("atto: the command line is an extra: pip install 'atto-workers[cli]'")
    sys.exit(run(sys.argv[1:]))
