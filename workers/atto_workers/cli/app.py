"""The commands, their configuration, and what becomes of errors."""

import os
import sys
from typing import Literal

import msgspec
from cyclopts import App, CycloptsError
from cyclopts.config import Env, Toml

from atto.protocol.errors import AttoError
from atto_workers.cli import letters, runs, sessions, worker
from atto_workers.cli.exits import INTERRUPTED, USAGE, exit_code

app = App(
    name="atto",
    help="Durable sessions of LLM agents over NATS JetStream.",
    config=[
        Env("ATTO_", command=False),
        Toml(
            os.environ.get("ATTO_CONFIG", "atto.toml"),
            use_commands_as_keys=False,
            allow_unknown=True,
            must_exist="ATTO_CONFIG" in os.environ,
        ),
    ],
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
)
app.command(worker.worker)
app.command(runs.run)
app.command(runs.attach)
app.command(runs.cancel)
app.command(sessions.app)
app.command(letters.app)
app.register_install_completion_command()


@app.command
def completion(shell: Literal["bash", "zsh", "fish"]) -> None:
    """Prints the completion script of a shell."""
    sys.stdout.write(app.generate_completion(shell=shell))


def run(arguments: list[str]) -> int:
    """Runs one command and returns its exit code; an error is one line, or one JSON object with `--json`."""
    try:
        return app(arguments) or 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except CycloptsError as error:
        _tell(arguments, "usage", str(error))
        return USAGE
    except (AttoError, OSError, ValueError) as error:
        if os.environ.get("ATTO_DEBUG"):
            raise
        _tell(arguments, error.code if isinstance(error, AttoError) else "error", str(error))
        return exit_code(error)


def _tell(arguments: list[str], code: str, message: str) -> None:
    if "--json" in arguments:
        line = msgspec.json.encode({"error": {"code": code, "message": message}}).decode()
    else:
        line = f"atto: {' '.join(message.split())}"
    print(line, file=sys.stderr)  # noqa: T201 - what the command has to say
