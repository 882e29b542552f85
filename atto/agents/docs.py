"""What a function's docstring says of it and of its parameters."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from atto.agents.extras import load


class Docs(NamedTuple):
    """Descriptions, empty where there are none; `parameters` by name."""

    description: str
    parameters: dict[str, str]


def read_docs(function: Callable[..., Any]) -> Docs:
    """Reads Google, NumPy, reST and Epydoc style; any other text is the description as a whole.

    Raises `MissingExtra` if there is a docstring and docstring-parser is not installed.
    """
    text = inspect.getdoc(function)
    if not text:
        return Docs("", {})
    parser = load("docstring_parser")
    try:
        parsed = parser.parse(text)
    except parser.ParseError:
        return Docs(text, {})
    parameters = {
        name.strip(): (parameter.description or "").strip()
        for parameter in parsed.params
        for name in parameter.arg_name.split(",")  # NumPy style documents `x, y : int` together
    }
    return Docs((parsed.description or "").strip(), parameters)
