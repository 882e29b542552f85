"""Undoes what strict modes demand: a property that may be missing comes as null."""

import re
from typing import Any, cast

from atto.models.schemas.dialects import Json

_REF = re.compile(r"#/(\$defs|definitions)/([^/]+)")


def without_nulls(answer: Any, schema: Json) -> Any:
    """An answer as `schema` wants it: without the nulls of properties that may be missing and not be null.

    OpenAI's strict mode demands all properties of a model, which says null for those it would leave out.
    """
    return _cleaned(answer, schema, schema)


def _cleaned(value: Any, schema: Any, root: Json) -> Any:
    found = [branch for branch in _branches(schema, root) if _is_for(value, branch)]
    if isinstance(value, dict):
        fields = cast("Json", value)
        branch = _by_fields(fields, [one for one in found if isinstance(one.get("properties"), dict)])
        return fields if branch is None else _object(fields, branch, root)
    if isinstance(value, list):
        return [_cleaned(item, _item(found, at), root) for at, item in enumerate(cast("list[Any]", value))]
    return value


def _item(branches: list[Json], at: int) -> Any:
    """The schema of the item at this place."""
    for branch in branches:
        first = cast("list[Any]", branch.get("prefixItems") or [])
        if at < len(first):
            return first[at]
        if isinstance(branch.get("items"), dict):
            return branch["items"]
    return True


def _object(fields: Json, schema: Json, root: Json) -> Json:
    properties, required = cast("Json", schema["properties"]), schema.get("required") or ()
    return {
        name: _cleaned(value, properties.get(name, True), root)
        for name, value in fields.items()
        if value is not None or name in required or _takes_null(properties.get(name, True), root)
    }


def _by_fields(fields: Json, branches: list[Json]) -> Json | None:
    """The branch of a union that has the answer's properties, and allows its constants."""
    for branch in branches:
        properties = cast("Json", branch["properties"])
        known = fields.keys() <= properties.keys() or branch.get("additionalProperties") not in (None, False)
        if known and all(
            _allows(properties[name], value) for name, value in fields.items() if name in properties
        ):
            return branch
    return branches[0] if len(branches) == 1 else None


def _allows(schema: Any, value: Any) -> bool:
    if not isinstance(schema, dict) or value is None:
        return True
    fields = cast("Json", schema)
    return value in fields.get("enum", [value]) and value == fields.get("const", value)


def _takes_null(schema: Any, root: Json) -> bool:
    return any(_is_for(None, branch) for branch in _branches(schema, root))


def _branches(schema: Any, root: Json, depth: int = 0) -> list[Json]:
    """A schema, or those of which it is the union."""
    if not isinstance(schema, dict) or depth > 32:
        return [{}] if schema is not False else []
    fields = cast("Json", schema)
    found = _REF.fullmatch(str(fields.get("$ref")))
    if found is not None:
        return _branches(cast("Json", root.get(found[1]) or {}).get(found[2]), root, depth + 1)
    several = fields.get("anyOf") or fields.get("oneOf") or fields.get("allOf")
    if not several:
        return [fields]
    return [one for branch in several for one in _branches(branch, root, depth + 1)]


def _is_for(value: Any, schema: Json) -> bool:
    """Whether a value's type is the schema's."""
    if "const" in schema or "enum" in schema:
        return value in schema.get("enum", [schema.get("const")])
    kinds = schema.get("type")
    return kinds is None or not {*_names(value)}.isdisjoint([kinds] if isinstance(kinds, str) else kinds)


def _names(value: Any) -> tuple[str, ...]:
    """The types of JSON Schema that a value may have."""
    match value:
        case None:
            return ("null",)
        case bool():
            return ("boolean",)
        case str():
            return ("string",)
        case dict():
            return ("object",)
        case list():
            return ("array",)
        case _:
            return ("integer", "number")
