"""The parameters of a function, as far as a tool is concerned."""

import inspect
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from atto.agents.annotations import walk
from atto.agents.context import ToolContext
from atto.protocol.errors import InvalidTool

REQUIRED = inspect.Parameter.empty


class Parameter(NamedTuple):
    """One that a model fills in; `default` is `REQUIRED` where there is none."""

    name: str
    annotation: Any
    default: Any


class Signature(NamedTuple):
    """`context`: the parameter that takes the `ToolContext`; `open`: the function takes `**kwargs`."""

    parameters: tuple[Parameter, ...]
    context: str | None
    open: bool


def read_signature(function: Callable[..., Any], *, schema_given: bool) -> Signature:
    """Every parameter is passed by name. Raises `InvalidTool` for one that cannot be, or has no annotation.

    With a schema of the author's own, annotations may be missing, and `**kwargs` takes what has no
    parameter.
    """
    hints = _hints(function)
    declared = inspect.signature(function).parameters.values()
    contexts = [parameter.name for parameter in declared if _is_context(hints.get(parameter.name))]
    if len(contexts) > 1:
        raise InvalidTool(f"parameters {_list(contexts)} are all annotated ToolContext: keep one of them")
    parameters = tuple(
        Parameter(parameter.name, hints.get(parameter.name, Any), parameter.default)
        for parameter in declared
        if parameter.name not in contexts
        and _is_named(parameter, schema_given=schema_given)
        and _is_annotated(parameter.name, hints, schema_given=schema_given)
    )
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in declared)
    return Signature(parameters, contexts[0] if contexts else None, takes_any)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:
        raise InvalidTool(
            f"its annotations cannot be read ({type(error).__name__}: {error}): define and import the types "
            "that they name at the top of the module, not inside a function or under TYPE_CHECKING"
        ) from error


def _is_context(annotation: Any) -> bool:
    return any(part is ToolContext for part in walk(annotation))


def _is_named(parameter: inspect.Parameter, *, schema_given: bool) -> bool:
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise InvalidTool(
            f"parameter `{parameter.name}` is positional-only, but models pass arguments by name: "
            "remove the `/` from the signature"
        )
    if parameter.kind is parameter.VAR_POSITIONAL:
        raise InvalidTool(
            f"`*{parameter.name}` has no name for a model to pass: "
            f"take a list instead, as in `{parameter.name}: list[str]`"
        )
    if parameter.kind is parameter.VAR_KEYWORD and not schema_given:
        raise InvalidTool(
            f"`**{parameter.name}` does not tell a model what it may pass: name the parameters, "
            f"take a dict as in `{parameter.name}: dict[str, str]`, or describe them by `@tool(schema=...)`"
        )
    return parameter.kind is not parameter.VAR_KEYWORD


def _is_annotated(name: str, hints: dict[str, Any], *, schema_given: bool) -> bool:
    if name in hints or schema_given:
        return True
    if name in {"self", "cls"}:
        raise InvalidTool(
            f"it is a method without its object (`{name}`): pass the bound method, as in `tool(obj.method)`"
        )
    raise InvalidTool(
        f"parameter `{name}` has no annotation, so a model cannot know what to pass: write `{name}: str`, "
        f"or whichever type it is; `{name}: Any` takes anything"
    )


def _list(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
