"""JSON Schemas that authors write themselves."""

import copy
from typing import Any

from atto.agents.extras import load
from atto.agents.signature import REQUIRED, Signature
from atto.protocol.errors import InvalidTool, ToolArgumentsInvalid, ToolFailed


class GivenParameters:
    """Parameters by the author's schema (draft 2020-12, of type object, complete in itself).

    Arguments are validated by it and passed by name as they came. Nothing is ever fetched: a `$ref` that
    leads out of the schema is refused. Raises `InvalidTool`.
    """

    def __init__(self, schema: dict[str, Any], signature: Signature) -> None:
        self.schema = checked(schema)
        self._signature = signature
        self._accepted = {parameter.name for parameter in signature.parameters}
        self._required = [each.name for each in signature.parameters if each.default is REQUIRED]
        self._best = load("jsonschema.exceptions").best_match
        self._validator = load("jsonschema").Draft202012Validator(
            self.schema, registry=load("referencing").Registry()
        )
        unknown = [name for name in self.schema.get("properties", ()) if not self._accepts(name)]
        if unknown:
            raise InvalidTool(
                f"its schema has properties that the function does not take ({', '.join(unknown)}): "
                "add the parameters, or `**kwargs`"
            )

    def bind(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """See `Parameters.bind`."""
        problem = self._problem(arguments)
        if problem:
            raise ToolArgumentsInvalid(f"the arguments are not valid: {problem}")
        return copy.deepcopy(arguments)

    def _problem(self, arguments: dict[str, Any]) -> str | None:
        try:
            error = self._best(self._validator.iter_errors(arguments))
        except Exception as failure:
            raise ToolFailed(f"the tool's schema cannot be applied: {failure}") from failure
        if error is not None:
            return f"{error.message} - at `{error.json_path}`"
        for name in arguments:
            if not self._accepts(name):
                return f"there is no argument `{name}`"
        missing = [name for name in self._required if name not in arguments]
        return f"`{missing[0]}` is missing" if missing else None

    def _accepts(self, name: str) -> bool:
        return name in self._accepted or (self._signature.open and name != self._signature.context)


def checked(schema: dict[str, Any]) -> dict[str, Any]:
    """A copy of a valid schema of type object without references to elsewhere. Raises `InvalidTool`."""
    validator = load("jsonschema").Draft202012Validator
    try:
        validator.check_schema(schema)
    except load("jsonschema").SchemaError as error:
        raise InvalidTool(f"its schema is not valid: {error.message} at `{error.json_path}`") from error
    if schema.get("type") != "object":
        raise InvalidTool('its schema needs `"type": "object"`: models pass arguments by name')
    _check_references(schema)
    return copy.deepcopy(schema)


def _check_references(schema: dict[str, Any]) -> None:
    root = load("referencing.jsonschema").DRAFT202012.create_resource(schema)
    _check_resource(root, load("referencing").Registry().resolver_with_root(root))


def _check_resource(resource: Any, resolver: Any) -> None:
    contents: dict[str, Any] | bool = resource.contents
    for keyword in ("$ref", "$dynamicRef"):
        if isinstance(contents, dict) and keyword in contents:
            _check_reference(contents[keyword], resolver)
    for inner in resource.subresources():
        _check_resource(inner, resolver.in_subresource(inner))


def _check_reference(reference: str, resolver: Any) -> None:
    try:
        resolver.lookup(reference)
    except load("referencing.exceptions").Unresolvable as error:
        raise InvalidTool(
            f"its schema refers to {reference!r}, which is not in it: schemas are never fetched, "
            "so put the definition under `$defs` and refer to `#/$defs/...`"
        ) from error
