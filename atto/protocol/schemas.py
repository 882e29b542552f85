"""JSON Schemas (draft 2020-12) of the messages that travel: `python -m atto.protocol.schemas DIRECTORY`.

They say what this release writes and accepts. Fields that they do not name are ignored by every reader.
"""

import inspect
import sys
from pathlib import Path
from typing import Any, cast, get_args

import msgspec

from atto.protocol.events import AnyEvent, EventBatch
from atto.protocol.ids import MAX_ID_BYTES
from atto.protocol.sessions import SnapshotPage
from atto.protocol.turns import SCHEMA_VERSION, Cancel, Turn

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MESSAGES: dict[str, type[msgspec.Struct]] = {
    "turn.json": Turn,
    "event-batch.json": EventBatch,
    "cancel.json": Cancel,
    "snapshot-page.json": SnapshotPage,
}

# What the types check beyond their fields' types, in the words of JSON Schema.
_URL_OR_DATA = {
    "oneOf": [
        {"required": ["url"], "properties": {"url": {"type": "string"}}},
        {
            "required": ["data", "media_type"],
            "properties": {"data": {"type": "string"}, "media_type": {"type": "string"}},
        },
    ]
}
_ANSWERS = ("approve", "value", "error", "cancel", "expired")
_INVARIANTS: dict[str, dict[str, Any]] = {
    "ImagePart": _URL_OR_DATA,
    "FilePart": _URL_OR_DATA,
    "Answer": {
        "oneOf": [{"required": [kind]} for kind in _ANSWERS],
        "dependentSchemas": {
            "arguments": {"properties": {"approve": {"const": True}}, "required": ["approve"]}
        },
    },
    "Turn": {
        "oneOf": [
            {"required": ["input"], "not": {"required": ["resume"]}},
            {
                "required": ["resume"],
                "not": {"anyOf": [{"required": [field]} for field in ("input", "agent", "on_busy")]},
            },
        ]
    },
}
_ID = {"minLength": 1, "maxLength": MAX_ID_BYTES}  # characters here, bytes there
_FIELD_INVARIANTS: dict[tuple[str, str], dict[str, Any]] = {
    ("Turn", "input"): {"minLength": 1, "minItems": 1},
    ("Turn", "run_id"): {"maxLength": MAX_ID_BYTES},  # "" is none
    ("Resume", "run_id"): _ID,
    ("Resume", "answers"): {"minProperties": 1},
    ("Turn", "expires"): {"format": "date-time", "pattern": "([Zz]|[+-][0-9]{2}:[0-9]{2})$"},
}

# What readers may meet in what a newer release writes, in the place of one of several kinds.
_TO_READERS = frozenset({"event-batch.json", "snapshot-page.json"})
_OPEN_FIELDS = (("Message", "role"), ("Wait", "kind"), ("RunRecord", "ended"))
_UNKNOWN_PART = "UnknownPart"


def generate() -> dict[str, bytes]:
    """File name → the schema as indented JSON; the same bytes every time."""
    return {name: _document(name, message) for name, message in _MESSAGES.items()}


def write(directory: Path) -> None:
    """Writes one file a message into `directory`, which it creates."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, document in generate().items():
        (directory / name).write_bytes(document)


def _document(name: str, message: type[msgspec.Struct]) -> bytes:
    schema = msgspec.json.schema(message)
    for definition, body in schema["$defs"].items():
        _complete(definition, body)
    if name in _TO_READERS:
        _open(schema)
    title = f"atto {name.removesuffix('.json').replace('-', ' ')}, version {SCHEMA_VERSION}"
    document = {"$schema": _DIALECT, "title": title, **schema}
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _open(schema: dict[str, Any]) -> None:
    """Readers pass over parts, roles and kinds that they do not know."""
    definitions: dict[str, Any] = schema["$defs"]
    for definition, field in _OPEN_FIELDS:
        if definition in definitions:
            known = definitions[definition]["properties"][field]
            known |= {"type": "string", "examples": known.pop("enum")}
    tags: set[str] = set()
    _open_parts(schema, tags)
    definitions[_UNKNOWN_PART] = {
        "title": _UNKNOWN_PART,
        "description": "A part of a type that this release does not know; a newer one wrote it.",
        "type": "object",
        "properties": {"type": {"type": "string", "not": {"enum": sorted(tags)}}},
        "required": ["type"],
    }


def _open_parts(node: Any, tags: set[str]) -> None:
    """Adds the unknown part to every choice of parts, and the types of the known ones to `tags`."""
    if isinstance(node, list):
        for each in cast("list[Any]", node):
            _open_parts(each, tags)
    if not isinstance(node, dict):
        return
    node = cast("dict[str, Any]", node)
    for each in node.values():
        _open_parts(each, tags)
    mapping = node.get("discriminator", {}).get("mapping", {})
    if mapping and "TextPart" in str(mapping):
        tags.update(mapping)
        node["anyOf"].append({"$ref": f"#/$defs/{_UNKNOWN_PART}"})


def _complete(definition: str, body: dict[str, Any]) -> None:
    body["description"] = inspect.cleandoc(body["description"])
    body.update(_INVARIANTS.get(definition, {}))
    properties = body["properties"]
    for field, schema in properties.items():
        schema.update(_FIELD_INVARIANTS.get((definition, field), {}))
        if (definition, field) == ("Turn", "input"):
            schema.pop("default")  # which stands for none
    if "v" in properties:
        properties["v"] = {"const": SCHEMA_VERSION, "default": SCHEMA_VERSION}
    if definition == "UnknownEvent":
        # It travels under the type that its writer gave it, which is none of those that this release knows.
        known = sorted(str(kind.__struct_config__.tag) for kind in get_args(AnyEvent))
        body["properties"] = {"type": {"type": "string", "not": {"enum": known}}, "seq": properties["seq"]}
        body["required"] = ["type", "seq"]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m atto.protocol.schemas DIRECTORY")
    write(Path(sys.argv[1]))
