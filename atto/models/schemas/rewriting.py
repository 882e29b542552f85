"""Writes a JSON Schema in the subset that a provider holds a model to."""

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, cast

import msgspec

from atto.models.schemas.dialects import Dialect, Json

_REF = re.compile(r"#/(?:\$defs|definitions)/([^/]+)")
_LOOKS_AROUND = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9]")
_ANNOTATIONS = frozenset({"title", "description"})
_UNION = frozenset({"anyOf", "oneOf"})
_OF_OBJECTS = frozenset({"properties", "required", "additionalProperties"})
_OF_ARRAYS = frozenset({"items", "prefixItems"})
_STRUCTURE = (
    _UNION
    | _OF_OBJECTS
    | _OF_ARRAYS
    | frozenset({"$ref", "$defs", "definitions", "type", "enum", "const", "allOf"})
)
# they say nothing of a value that a model must know
_SILENT = frozenset(
    {"$schema", "$id", "$anchor", "$comment", "$dynamicAnchor", "$vocabulary", "discriminator"}
    | {"deprecated", "readOnly", "writeOnly"}
)
_FREE_KEYS = frozenset(
    {"patternProperties", "unevaluatedProperties", "dependentSchemas", "$dynamicRef", "$recursiveRef"}
)


class Inexpressible(Exception):
    """The dialect cannot say it."""


def rewritten(schema: Json, dialect: Dialect) -> Json | None:
    """The schema in the dialect; None: it cannot be said there, or is beyond its limits.

    It accepts what the given one accepts, and more where an assertion is only told in a description; fewer
    properties where the given one does not close an object. Do not change it: it is kept for the next call.
    """
    try:
        encoded = msgspec.json.encode(schema)
    except (TypeError, UnicodeEncodeError):  # not JSON, or half a character, which bodies are cleaned of
        return _rewritten(schema, dialect)
    return _remembered(encoded, dialect)


@lru_cache(maxsize=1024)
def _remembered(encoded: bytes, dialect: Dialect) -> Json | None:
    return _rewritten(msgspec.json.decode(encoded), dialect)


def _rewritten(schema: Json, dialect: Dialect) -> Json | None:
    try:
        written = _Rewriting(schema, dialect).whole()
        return written if dialect.fits(written) else None
    except (Inexpressible, RecursionError):
        return None


class _Rewriting:
    """`schema`: the root, which holds the definitions."""

    def __init__(self, schema: Json, dialect: Dialect) -> None:
        self._root = schema
        self._dialect = dialect
        self._given: Json = {**(schema.get("definitions") or {}), **(schema.get("$defs") or {})}
        self._written: dict[str, Json | None] = {}
        self._within: list[str] = []

    def whole(self) -> Json:
        root = self._root
        if "$ref" in root:
            root = {**self._target(root), **{name: root[name] for name in _ANNOTATIONS & root.keys()}}
        written = self._schema(root)
        return {**written, "$defs": self._written} if self._written else written

    def _schema(self, given: Any) -> Json:
        if not isinstance(given, dict):
            given = self._anything(given)
        schema = _merged(cast("Json", given))
        if "$ref" in schema:
            return self._reference(schema)
        if schema.keys() & _FREE_KEYS:
            raise Inexpressible
        if "anyOf" in schema or "oneOf" in schema:
            return self._described(schema, self._union(schema))
        if "const" in schema or "enum" in schema:
            return self._described(schema, self._enum(schema))
        kinds = _kinds(schema)
        if not kinds and self._dialect.closed:
            raise Inexpressible
        written: Json = {"type": kinds[0] if len(kinds) == 1 else kinds} if kinds else {}
        if "object" in kinds:
            written.update(self._object(schema))
        if "array" in kinds:
            written.update(self._array(schema))
        return self._described(schema, written)

    def _anything(self, given: Any) -> Json:
        if given is not True or self._dialect.closed:
            raise Inexpressible
        return {}

    def _reference(self, schema: Json) -> Json:
        name = self._name(schema)
        if name in self._within and not self._dialect.recursive:
            raise Inexpressible
        if name not in self._written:
            self._written[name] = None
            self._within.append(name)
            self._written[name] = self._schema(self._given[name])
            self._within.pop()
        reference = {"$ref": f"#/$defs/{name}"}
        said = self._described(schema, {})
        if not said:
            return reference
        return {"anyOf": [reference], **said} if self._dialect.named_refs else reference

    def _name(self, schema: Json) -> str:
        found = _REF.fullmatch(str(schema["$ref"]))
        name = "" if found is None else found[1].replace("~1", "/").replace("~0", "~")
        if name not in self._given or "/" in name or "~" in name:
            raise Inexpressible
        return name

    def _target(self, schema: Json) -> Json:
        target = self._given[self._name(schema)]
        if not isinstance(target, dict) or "$ref" in target:
            raise Inexpressible
        return cast("Json", target)

    def _union(self, schema: Json) -> Json:
        """One of several: their own types, if they have any, else that of all."""
        if ("anyOf" in schema and "oneOf" in schema) or schema.keys() & (_STRUCTURE - _UNION - {"type"}):
            raise Inexpressible
        common = {"type": schema["type"]} if "type" in schema else {}
        branches: list[Json] = []
        for branch in schema.get("anyOf") or schema.get("oneOf") or ():
            bare = isinstance(branch, dict) and not branch.keys() & {"type", "$ref", "enum", "const", *_UNION}
            branches.append(self._schema({**common, **branch} if bare else branch))
        if not branches:
            raise Inexpressible
        return {"anyOf": branches}

    def _enum(self, schema: Json) -> Json:
        values: list[Any] = [schema["const"]] if "const" in schema else list(schema["enum"])
        if any(isinstance(value, dict | list) for value in values) or not values:
            raise Inexpressible
        kinds = list(dict.fromkeys(map(_kind, values)))
        if self._dialect.odd_enums or not {"null", "boolean"} & set(kinds):
            return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}
        plain = [value for value in values if _kind(value) not in {"null", "boolean"}]
        branches: list[Json] = [{"type": kind} for kind in kinds if kind in {"null", "boolean"}]
        if plain:
            branches.insert(0, self._enum({"enum": plain}))
        return branches[0] if len(branches) == 1 else {"anyOf": branches}

    def _object(self, schema: Json) -> Json:
        given = cast("Json", schema.get("properties") or {})
        required = [name for name in given if name in (schema.get("required") or ())]
        if not self._dialect.closed:
            return self._open_object(schema, given, required)
        if schema.get("additionalProperties", not given) not in (False, None):  # a dict has no hash
            raise Inexpressible
        if set(schema.get("required") or ()) - given.keys():
            raise Inexpressible
        properties = {name: self._schema(value) for name, value in given.items()}
        if self._dialect.optional != "kept":
            for name in given.keys() - set(required):
                properties[name] = self._nullable(properties[name])
            required = list(given)
        return {"properties": properties, "required": required, "additionalProperties": False}

    def _open_object(self, schema: Json, given: Json, required: list[str]) -> Json:
        written: Json = {}
        if given:
            written["properties"] = {name: self._schema(value) for name, value in given.items()}
        if required:
            written["required"] = required
        others = schema.get("additionalProperties")
        if others is not None:
            written["additionalProperties"] = self._schema(others) if isinstance(others, dict) else others
        return written

    def _nullable(self, schema: Json) -> Json:
        if self._takes_null(schema):
            return schema
        if self._dialect.optional == "never":
            raise Inexpressible
        if isinstance(schema.get("type"), str) and "enum" not in schema and "properties" not in schema:
            return {**schema, "type": [schema["type"], "null"]}
        null = {"type": "null"}
        if "anyOf" in schema:
            return {**schema, "anyOf": [*schema["anyOf"], null]}
        said = {name: schema[name] for name in _ANNOTATIONS & schema.keys()}
        rest = {name: value for name, value in schema.items() if name not in said}
        return {"anyOf": [rest, null], **said}

    def _takes_null(self, schema: Json) -> bool:
        if "$ref" in schema:
            target = self._written.get(schema["$ref"].removeprefix("#/$defs/"))
            return target is not None and self._takes_null(target)
        if "anyOf" in schema:
            return any(map(self._takes_null, schema["anyOf"]))
        kind = schema.get("type")
        return kind == "null" or (isinstance(kind, list) and "null" in kind)

    def _array(self, schema: Json) -> Json:
        first = cast("list[Any]", schema.get("prefixItems") or [])
        rest: Any = schema.get("items")
        if self._dialect.tuples and first:
            written: Json = {"prefixItems": [self._schema(item) for item in first]}
            return written if not isinstance(rest, dict) else {**written, "items": self._schema(rest)}
        if first:
            items: list[Any] = [*first, rest] if isinstance(rest, dict) else first
            kinds = list(map(self._schema, items))
            different = [kind for at, kind in enumerate(kinds) if kind not in kinds[:at]]
            return {"items": different[0] if len(different) == 1 else {"anyOf": different}}
        if rest is None and not self._dialect.closed:
            return {}
        return {"items": self._schema(True if rest is None else rest)}

    def _described(self, schema: Json, written: Json) -> Json:
        """Adds the assertions that the dialect has, and tells of those that it has not."""
        told: list[str] = []
        for name, value in _assertions(schema):
            if self._says(name, value):
                written[name] = value
            else:
                told.append(f"{name}: {json.dumps(value, ensure_ascii=False)}")
        if "prefixItems" in schema and "prefixItems" not in written:
            told.append(f"prefixItems: {json.dumps(schema['prefixItems'], ensure_ascii=False)}")
        description = "\n".join(filter(None, (str(schema.get("description") or ""), "; ".join(told))))
        if isinstance(schema.get("title"), str):
            written["title"] = schema["title"]
        if description:
            written["description"] = description
        return written

    def _says(self, name: str, value: Any) -> bool:
        if name == "format":
            return self._dialect.formats is None or value in self._dialect.formats
        if name == "pattern" and _LOOKS_AROUND.search(str(value)):
            return False
        if name == "minItems" and "maxItems" not in self._dialect.keywords:
            return value in {0, 1}
        return name in self._dialect.keywords


def _assertions(schema: Json) -> Iterator[tuple[str, Any]]:
    for name, value in schema.items():
        if name not in _STRUCTURE | _ANNOTATIONS | _SILENT and not name.startswith("x-"):
            yield name, value


def _merged(schema: Json) -> Json:
    """Without an `allOf` of one, as generators write it around a reference with a description."""
    every = schema.get("allOf")
    if every is None:
        return schema
    rest = {name: value for name, value in schema.items() if name != "allOf"}
    if len(every) != 1 or not isinstance(every[0], dict) or (rest.keys() & every[0].keys()) - _ANNOTATIONS:
        raise Inexpressible
    return {**every[0], **rest}


def _kinds(schema: Json) -> list[str]:
    given = schema.get("type")
    if given is not None:
        return [given] if isinstance(given, str) else list(cast("list[str]", given))
    if "properties" in schema:
        return ["object"]
    return ["array"] if "items" in schema or "prefixItems" in schema else []


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case str():
            return "string"
        case int():
            return "integer"
        case _:
            return "number"
