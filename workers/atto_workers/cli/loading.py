"""What a module defines, by name, `module:variable`, as commands take it."""

import importlib
import sys
from pathlib import Path
from typing import Any

from atto.agents import Agent
from atto_workers.cli.exits import Unusable
from atto_workers.gateway import ModelGateway, ModelPolicies

_FORM = "write it as module:variable, as `app:agent` for app.py"


def check_name(name: str) -> tuple[str, str]:
    """The module and the variable. Raises `Unusable`."""
    module, _, variable = name.partition(":")
    if not module or not variable:
        raise Unusable(f"{name!r} names no variable of a module: {_FORM}")
    if module.endswith(".py") or "/" in module:
        raise Unusable(f"{name!r} names a file, not a module: {_FORM}")
    return module, variable


def load_agent(name: str) -> Agent:
    """The agent; modules of the working directory are found first.

    Raises `Unusable` for whatever prevents it, an error of the module included.
    """
    agent = _load(name)
    if not isinstance(agent, Agent):
        raise Unusable(f"{name!r} is no Agent, but of type {type(agent).__name__}")
    return agent


def load_policies(name: str) -> ModelPolicies:
    """How models are treated. As `load_agent`."""
    policies = _load(name)
    try:
        ModelGateway(policies)
    except TypeError as error:
        raise Unusable(f"{name!r} says not how models are treated: {error}") from error
    return policies


def _load(name: str) -> Any:
    module, variable = check_name(name)
    if sys.path[0] != str(Path.cwd()):
        sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), variable)
    # The module is the user's: it may end in any way, `sys.exit` included.
    except (Exception, SystemExit) as error:
        raise Unusable(f"cannot load {name!r}: {type(error).__name__}: {error}") from error
