"""Packages that are installed on request, imported when they are first needed."""

import importlib
from types import ModuleType

from atto.protocol.errors import MissingExtra


def load(module: str) -> ModuleType:
    """A module of the extra `tools`. Raises `MissingExtra` if its package is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(
            f"tools need the package that has `{module}`: pip install 'atto-agents[tools]'"
        ) from error
