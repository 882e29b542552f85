"""The file of settings, `atto.toml`. All commands share it, so each finds options of others in it."""

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cyclopts import App, ArgumentCollection
from cyclopts.config import Toml

from atto_workers.cli.exits import Unusable


def settings_path() -> str:
    """Where the file is, if there is one."""
    return os.environ.get("ATTO_CONFIG", "atto.toml")


def settings_file() -> Toml:
    """The file as cyclopts reads it: a command takes its own options, and leaves the rest."""
    return Toml(
        settings_path(),
        use_commands_as_keys=False,
        allow_unknown=True,
        must_exist="ATTO_CONFIG" in os.environ,
    )


def check_settings(root: App) -> None:
    """Raises `Unusable` for what is no option of any command: nobody would ever read it."""
    settings = settings_file().config
    if settings:
        unknown = _unknown(settings, list(_options(root)))
        if unknown is not None:
            raise Unusable(f"{settings_path()}: {unknown}")


def _unknown(settings: Mapping[str, Any], options: Iterable[ArgumentCollection]) -> str | None:
    for key, value in settings.items():
        if isinstance(value, dict):
            return (
                f"there is no section [{key}]: its settings stand at the top of the file, without a section"
            )
        if not any(_has(arguments, key) for arguments in options):
            return f"there is no setting {key!r}{_hint(key, options)}"
    return None


def _has(arguments: ArgumentCollection, key: str) -> bool:
    try:
        arguments.match(f"--{key}")
    except ValueError:
        return False
    return True


def _hint(key: str, options: Iterable[ArgumentCollection]) -> str:
    names = (name for arguments in options for argument in arguments for name in argument.names)
    known = sorted({name.removeprefix("--") for name in names if name.startswith("--")})
    close = difflib.get_close_matches(key.lower().replace("_", "-"), known, n=1)
    return f": did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"


def _options(app: App) -> Iterator[ArgumentCollection]:
    """Those of each command, and of the commands below it."""
    for name in app:
        if name.startswith("-"):
            continue
        command = app[name]
        if command.default_command is None:
            yield from _options(command)
        else:
            yield command.assemble_argument_collection()
