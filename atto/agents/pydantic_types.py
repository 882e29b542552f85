"""Pydantic's types in the signatures and results of tools, if the author uses pydantic.

It is never imported here: a type of pydantic's can only be met once the author has imported it.
Such types validate by their own rules (`model_config` and all), as they do on JSON.
"""

import sys
from typing import Any

from atto.agents.annotations import package, walk
from atto.protocol.errors import InvalidTool

_PACKAGES = {"pydantic", "pydantic_core", "annotated_types"}
_MARKS = ("__get_pydantic_core_schema__", "__pydantic_validator__")


class PydanticType:
    """An annotation as pydantic reads it."""

    def __init__(self, annotation: Any) -> None:
        self._adapter = sys.modules["pydantic"].TypeAdapter(annotation)

    def schema(self, prefix: str, definitions: dict[str, Any]) -> dict[str, Any]:
        """The JSON Schema; what it refers to is added to `definitions`, under names that start with `prefix`.

        Raises `InvalidTool` if such a name already stands for something else.
        """
        schema: dict[str, Any] = self._adapter.json_schema(ref_template=f"#/$defs/{prefix}__{{model}}")
        for name, definition in schema.pop("$defs", {}).items():
            if definitions.setdefault(f"{prefix}__{name}", definition) != definition:
                raise InvalidTool(f"two models called {prefix} have a different {name} each: rename one")
        return schema

    def validate(self, value: Any) -> Any:
        """A JSON value as what the annotation says. Raises ValueError, saying where and what is wrong."""
        data: bytes = sys.modules["pydantic_core"].to_json(value)
        try:
            return self._adapter.validate_json(data)
        except sys.modules["pydantic"].ValidationError as error:
            raise ValueError("; ".join(map(_describe, error.errors(include_url=False)))) from error


def is_pydantic(annotation: Any) -> bool:
    """Whether only pydantic reads all of the annotation: it has a type or a constraint of pydantic's."""
    return "pydantic" in sys.modules and any(map(_is_pydantic, walk(annotation)))


def is_model(kind: type[Any]) -> bool:
    """Whether `kind` is a pydantic model."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and issubclass(kind, pydantic.BaseModel)


def dump(value: Any) -> Any:
    """A pydantic model as plain values. Raises TypeError for any other object."""
    if is_model(value.__class__):
        return value.model_dump(mode="json")
    raise TypeError(f"{value.__class__.__name__} has no JSON form")


def _is_pydantic(part: Any) -> bool:
    return package(part) in _PACKAGES or any(hasattr(part, mark) for mark in _MARKS)


def _describe(problem: dict[str, Any]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"])
    return f"{problem['msg']} - at `{path.lstrip('.')}`" if path else problem["msg"]
