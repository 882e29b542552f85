"""Asks for an answer by a schema where a provider does not hold the model to it."""

import json

from atto.models.schemas.dialects import Json

_ASKED = "Answer with one JSON document and nothing else. It must be valid by this JSON Schema:"


def asked(instruction: str, schema: Json) -> str:
    """The instruction, and what the answer must be like."""
    return "\n\n".join(filter(None, (instruction, f"{_ASKED}\n{json.dumps(schema, ensure_ascii=False)}")))
