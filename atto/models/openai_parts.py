"""What the requests of both of OpenAI's APIs have in common."""

import re
from base64 import b64encode
from hashlib import sha256

import msgspec

from atto.protocol.messages import FilePart, Origin, ToolCallPart

_LONGEST_KEY = 64
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_-]")


def data_url(data: bytes | None, media_type: str | None) -> str:
    """Content inline, as a `data:` URL."""
    return f"data:{media_type};base64,{b64encode(data or b'').decode()}"


def is_text(part: FilePart) -> bool:
    """Whether an inline file can be told as text."""
    media_type = part.media_type or ""
    return part.data is not None and (media_type.startswith("text/") or media_type == "application/json")


def file_text(part: FilePart) -> str:
    """An inline file of text, under its name."""
    return f"{part.name or 'file'}:\n{(part.data or b'').decode('utf-8', 'replace')}"


def spec_name(name: str) -> str:
    """A model may have called something that is no name; the APIs refuse to hear of it."""
    return _NOT_A_NAME.sub("_", name)[:64] or "unnamed"


def cache_key(key: str) -> str | None:
    """Names the shared prefix to the provider, which takes 64 characters; session ids may be longer."""
    return sha256(key.encode()).hexdigest() if len(key) > _LONGEST_KEY else key or None


def arguments_text(part: ToolCallPart) -> str:
    """Always JSON: servers that parse the arguments (Ollama, vLLM) would refuse the whole history."""
    arguments = part.arguments if part.malformed is None else {"malformed": part.malformed}
    return msgspec.json.encode(arguments).decode()


def same_account(one: Origin | None, other: Origin) -> bool:
    """Whether one provider and account serve both models."""
    return one is not None and (one.provider, one.account) == (other.provider, other.account)
