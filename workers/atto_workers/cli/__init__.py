"""The command line `atto`."""

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
    sys.exit(run(sys.argv[1:]))
