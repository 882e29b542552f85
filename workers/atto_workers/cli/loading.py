"""Agents by name, `module:variable`, as commands take them."""

import importlib
import sys
from pathlib import Path

from atto.agents import Agent
from atto_workers.cli.exits import Unusable

_FORM = "write it as module:variable, as `app:agent` for app.py"


def check_name(name: str) -> tuple[str, str]:
    """The module and the variable. Raises `Unusable`."""
    module, _, variable = name.partition(":")
    if not module or not variable:
        raise Unusable(f"{name!r} names no agent: {_FORM}")
    if module.endswith(".py") or "/" in module:
        raise Unusable(f"{name!r} names a file, not a module: {_FORM}")
    return module, variable


def load_agent(name: str) -> Agent:
    """The agent; modules of the working directory are found first.

    Raises `Unusable` for whatever prevents it, an error of the module included.
    """
    module, variable = check_name(name)
    if sys.path[0] != str(Path.cwd()):
        sys.path.insert(0, str(Path.cwd()))
    try:
        agent = getattr(importlib.import_module(module), variable)
    # The module is the user's: it may end in any way, `sys.exit` included.
    except (Exception, SystemExit) as error:
        raise Unusable(f"cannot load {name!r}: {type(error).__name__}: {error}") from error
    if not isinstance(agent, Agent):
        raise Unusable(f"{name!r} is no Agent, but of type {type(agent).__name__}")
    return agent
