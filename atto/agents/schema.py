"""A tool's parameters as JSON Schema, and a model's arguments as what the function takes.

msgspec reads the annotations, and so decides both what the schema says and what is accepted. Annotations
with a type or a constraint of pydantic's are read by pydantic.
"""

import contextlib
import copy
from datetime import datetime, time
from typing import Any, Protocol, TypeAlias

import msgspec

from atto.agents import annotations
from atto.agents.docs import Docs
from atto.agents.plain import plain
from atto.agents.pydantic_types import PydanticType, is_model, is_pydantic
from atto.agents.signature import REQUIRED, Parameter, Signature
from atto.aio.user_code import words
from atto.protocol.errors import InvalidTool, ToolArgumentsInvalid

_JSON: TypeAlias = "dict[str, _JSON] | list[_JSON] | str | float | bool | None"
_REFERENCE = "#/$defs/{name}"
_VALUES = frozenset({"default", "const", "enum", "examples", "discriminator"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


class Parameters(Protocol):
    """What a tool takes. `schema`: JSON Schema of type object, for the model. `is_quick`: whether arguments
    are bound in so little time that the event loop can wait for it.
    """

    schema: dict[str, Any]
    is_quick: bool

    def bind(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments for the function, sharing nothing with `arguments`.

        Raises `ToolArgumentsInvalid`, in words that help the model to do better.
        """
        ...


class SignatureParameters:
    """Parameters by a function's signature. Raises `InvalidTool` for a type that JSON cannot carry.

    An argument that the model leaves out takes the function's own default. Numbers are not made from
    strings, nor booleans from numbers; a whole number such as `5.0` is an integer, as JSON Schema has it.
    """

    is_quick = True

    def __init__(self, signature: Signature, docs: Docs) -> None:
        self._definitions: dict[str, Any] = {}
        self._pydantic = {
            parameter.name: _read_by_pydantic(parameter)
            for parameter in signature.parameters
            if is_pydantic(parameter.annotation)
        }
        self._type = msgspec.defstruct(
            "arguments",
            [self._field(parameter) for parameter in signature.parameters],
            module="atto.agents",
            kw_only=True,
            forbid_unknown_fields=True,
        )
        self.schema = self._schema(signature.parameters, docs)

    def bind(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """See `Parameters.bind`."""
        try:
            struct = self._convert(copy.deepcopy(arguments))
            return {name: self._value(name, getattr(struct, name)) for name in arguments}
        except Exception as error:
            raise ToolArgumentsInvalid(f"the arguments are not valid: {words(error)}") from error

    def _convert(self, arguments: dict[str, Any]) -> msgspec.Struct:
        try:
            return msgspec.convert(arguments, self._type, str_keys=True, dec_hook=_decode_model)
        except msgspec.ValidationError:
            with contextlib.suppress(msgspec.ValidationError):
                return msgspec.convert(
                    _with_integers(arguments), self._type, str_keys=True, dec_hook=_decode_model
                )
            raise

    def _value(self, name: str, value: Any) -> Any:
        if name not in self._pydantic:
            return value
        try:
            return self._pydantic[name].validate(value)
        except ValueError as error:
            raise ValueError(f"`{name}`: {error}") from error

    def _field(self, parameter: Parameter) -> tuple[str, Any] | tuple[str, Any, Any]:
        name, annotation, default = parameter
        if name in self._pydantic:
            annotation = Any
        else:
            self._check(parameter)
        return (name, annotation) if default is REQUIRED else (name, annotation, None)

    def _check(self, parameter: Parameter) -> None:
        name, annotation, _ = parameter
        if any(annotations.package(part) == "annotated_types" for part in annotations.walk(annotation)):
            raise InvalidTool(
                f"parameter `{name}` has constraints of annotated_types, which only pydantic reads: "
                "write them as `Annotated[..., msgspec.Meta(ge=..., max_length=...)]`"
            )
        try:
            self._components(annotation)
        except InvalidTool:
            raise
        except Exception as error:
            raise InvalidTool(
                f"parameter `{name}` is annotated {annotation!r}, which JSON cannot carry "
                f"({str(error).splitlines()[-1]}): use str, int, float, bool, list, dict, Literal, an enum, "
                "a dataclass, a TypedDict, a msgspec Struct, a pydantic model, or unions of such"
            ) from error

    def _schema(self, parameters: tuple[Parameter, ...], docs: Docs) -> dict[str, Any]:
        reference, components = self._components(self._type)
        arguments = components.pop(reference["$ref"].removeprefix(_REFERENCE.format(name="")))
        properties = {
            parameter.name: self._property(parameter, arguments["properties"][parameter.name], docs)
            for parameter in parameters
        }
        schema: dict[str, Any] = {
            "type": "object",
            "properties": properties,
            "required": [parameter.name for parameter in parameters if parameter.default is REQUIRED],
            "additionalProperties": False,
        }
        definitions = components | self._definitions
        if definitions:
            schema["$defs"] = definitions
        return {key: _without_titles_in(key, value) for key, value in schema.items()}

    def _property(self, parameter: Parameter, found: dict[str, Any], docs: Docs) -> dict[str, Any]:
        name, annotation, default = parameter
        if name in self._pydantic:
            found = self._pydantic[name].schema(name, self._definitions)
        found.pop("default", None)
        _name_format(annotation, found)
        if docs.parameters.get(name) and not annotations.described(annotation):
            found["description"] = docs.parameters[name]
        if default is not REQUIRED:
            with contextlib.suppress(Exception):  # a default that JSON cannot say stays unsaid
                found["default"] = plain(default)
        return found

    def _components(self, annotation: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        (schema,), components = msgspec.json.schema_components(
            (annotation,), schema_hook=self._model_schema, ref_template=_REFERENCE
        )
        return schema, components

    def _model_schema(self, kind: type) -> dict[str, Any]:
        if not is_model(kind):
            raise NotImplementedError
        return PydanticType(kind).schema(kind.__name__, self._definitions)


def _read_by_pydantic(parameter: Parameter) -> PydanticType:
    name, annotation, _ = parameter
    if any(map(annotations.constrains, annotations.walk(annotation))):
        raise InvalidTool(
            f"parameter `{name}` mixes constraints of msgspec.Meta with pydantic's types; pydantic does not "
            "read them: write them as `pydantic.Field(...)`"
        )
    try:
        read = PydanticType(annotation)
        read.schema(name, {})
    except Exception as error:
        raise InvalidTool(
            f"parameter `{name}` is annotated {annotation!r}, which pydantic cannot read: {error}"
        ) from error
    return read


def _decode_model(kind: type, value: Any) -> Any:
    return PydanticType(kind).validate(value)


def _with_integers(value: _JSON) -> _JSON:
    if isinstance(value, dict):
        return {key: _with_integers(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_integers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _name_format(annotation: Any, schema: dict[str, Any]) -> None:
    """Says what strings a date and time takes, which msgspec does only where an offset is required."""
    kind = annotations.bare(annotation)
    for option in (schema, *schema.get("anyOf", ())):
        if option.get("type") == "string" and (kind is datetime or kind is time):
            option.setdefault("format", "date-time" if kind is datetime else "time")


def _without_titles(schema: _JSON) -> _JSON:
    """The schema without what only repeats the names of classes and fields."""
    if isinstance(schema, list):
        return [_without_titles(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_titles_in(key, value) for key, value in schema.items() if key != "title"}


def _without_titles_in(key: str, value: _JSON) -> _JSON:
    if key in _VALUES:
        return value
    if key in _NAMED and isinstance(value, dict):
        return {name: _without_titles(each) for name, each in value.items()}
    return _without_titles(value)
