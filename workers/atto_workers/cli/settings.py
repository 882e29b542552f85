"""The file of settings, `atto.toml`. All commands share it, so each finds options of others in it."""

import difflib
import os
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection
from cyclopts.config import Dict

from atto_workers.cli.exits import Unusable


def settings_of_file(*parsed: Any) -> None:
    """The file as a source of settings: a command takes its own options, and leaves the rest.

    Raises `Unusable` if it cannot be read.
    """
    Dict(_settings(), source=_path(), use_commands_as_keys=False, allow_unknown=True)(*parsed)


def check_settings(root: App) -> None:
    """Raises `Unusable` for what is no option of any command: nobody would ever read it."""
    settings = _settings()
    if settings:
        unknown = _unknown(settings, list(_options(root)))
        if unknown is not None:
            raise Unusable(f"{_path()}: {unknown}")


def _path() -> str:
    return os.environ.get("ATTO_CONFIG") or "atto.toml"


def _settings() -> dict[str, Any]:
    try:
        return tomllib.loads(Path(_path()).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not os.environ.get("ATTO_CONFIG"):
            return {}
        raise Unusable(f"{_path()}: {error.strerror}") from error
    except ValueError as error:
        raise Unusable(f"{_path()} is no TOML: {error}") from error


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
