"""What annotations say, whichever library is to read them."""

import typing
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Annotated, Any

import msgspec

_CONSTRAINTS = ("gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz")


def walk(annotation: Any) -> Iterator[Any]:
    """The annotation, its arguments, and what `Annotated` says of them, at any depth."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from walk(part)


def described(annotation: Any) -> bool:
    """Whether the annotation as a whole carries a description (by `msgspec.Meta` or `pydantic.Field`)."""
    if typing.get_origin(annotation) is not Annotated:
        return False
    return any(getattr(note, "description", None) is not None for note in annotation.__metadata__)


def bare(annotation: Any) -> Any:
    """The annotation without `Annotated` and without `| None`."""
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return bare(annotation.__origin__)
    if origin is UnionType or origin is typing.Union:
        others = [part for part in typing.get_args(annotation) if part is not NoneType]
        return bare(others[0]) if len(others) == 1 else annotation
    return annotation


def constrains(part: Any) -> bool:
    """Whether `part` is a `msgspec.Meta` that narrows what is valid."""
    return isinstance(part, msgspec.Meta) and any(getattr(part, name) is not None for name in _CONSTRAINTS)


def package(part: Any) -> str:
    """The top-level package that a type, or the type of an object, comes from."""
    kind: type = part if isinstance(part, type) else type(part)
    return kind.__module__.partition(".")[0]
