"""JSON Schemas that authors write themselves."""

import copy
from typing import Any

from atto.agents.schema_check import SchemaChecker, TooManySteps, check_schema
from atto.agents.signature import REQUIRED, Signature
from atto.aio.user_code import describe
from atto.protocol.errors import InvalidTool, ToolArgumentsInvalid, ToolFailed


class GivenParameters:
    """Parameters by the author's schema (draft 2020-12, of type object, complete in itself).

    Arguments are validated by it and passed by name as they came. Nothing is ever fetched: a `$ref` that
    leads out of the schema is refused, as is a schema that takes too long to check. Raises `InvalidTool`.
    """

    is_quick = False

    def __init__(self, schema: dict[str, Any], signature: Signature) -> None:
        self.schema = checked(schema)
        self._signature = signature
        self._accepted = {parameter.name for parameter in signature.parameters}
        self._required = [each.name for each in signature.parameters if each.default is REQUIRED]
        self._checker = SchemaChecker(self.schema)
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
            problem = self._checker.problem(arguments)
        except TooManySteps as failure:
            raise ToolArgumentsInvalid(f"{failure}: give less") from failure
        except Exception as failure:
            raise ToolFailed(f"the tool's schema cannot be applied: {describe(failure)}") from failure
        if problem is not None:
            return problem
        for name in arguments:
            if not self._accepts(name):
                return f"there is no argument `{name}`"
        missing = [name for name in self._required if name not in arguments]
        return f"`{missing[0]}` is missing" if missing else None

    def _accepts(self, name: str) -> bool:
        return name in self._accepted or (self._signature.open and name != self._signature.context)


def checked(schema: dict[str, Any]) -> dict[str, Any]:
    """A copy of a schema that `check_schema` takes. Raises `InvalidTool`."""
    check_schema(schema)
    return copy.deepcopy(schema)
