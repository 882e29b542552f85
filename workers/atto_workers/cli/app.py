"""The commands, their configuration, and what becomes of errors."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

from cyclopts import App, CycloptsError
from cyclopts.config import Env

from atto_workers.cli import chat, declaring, doctor, letters, runs, sessions, turns, watching, worker
from atto_workers.cli.exits import INTERRUPTED, USAGE, Unusable
from atto_workers.cli.failures import report, tell
from atto_workers.cli.options import OUTPUT, Output
from atto_workers.cli.settings import check_settings, settings_of_file


def _app(name: str, *sources: Callable[..., None], **settings: Any) -> App:
    return App(
        name=name,
        config=list(sources),
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
        **settings,
    )


_ENVIRONMENT = Env("ATTO_", command=False)


def _check(*_parsed: Any) -> None:
    """In the form of a source of settings, so that it is not asked where none are read, as by `--help`."""
    check_settings(app)


app = _app(
    "atto", _check, _ENVIRONMENT, settings_of_file, help="Durable sessions of LLM agents over NATS JetStream."
)
app.command(chat.dev)
app.command(worker.worker)
app.command(runs.run)
app.command(runs.attach)
app.command(runs.cancel)
app.command(sessions.app)
app.command(watching.workers)
app.command(watching.partitions)
app.command(letters.app)
app.command(turns.app)
app.command(declaring.declare)
app.command(doctor.doctor)
app.register_install_completion_command()


def _file_if_readable(*parsed: Any) -> None:
    with suppress(Unusable):  # which the command will say, but for its `--help`
        settings_of_file(*parsed)


# Whether errors are JSON is to be known of a command line that cannot be parsed, too.
_flags = _app("flags", _ENVIRONMENT, _file_if_readable, help_flags=[], version_flags=[])


@_flags.default
def _given(*, output: Output = OUTPUT) -> Output:
    return output


@app.command
def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Prints the completion script of a shell."""
    sys.stdout.write(app.generate_completion(shell=shell))


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code; an error is one line, or one JSON object with `--json`."""
    output = OUTPUT
    try:
        output = _output(arguments)
        return app(arguments) or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # or the interpreter complains at its end
        return 0
    except CycloptsError as error:
        tell(output, "usage", str(error))
        return USAGE
    except Exception as error:  # noqa: BLE001 - the one place where an error becomes an exit code
        return report(error, output)


def _output(arguments: list[str]) -> Output:
    _, bound, _, _ = _flags.parse_known_args(arguments)
    return bound.arguments.get("output", OUTPUT)
