"""Messages: what a session's history is made of, and what models see.

A message is a role and a list of parts. Parts are tagged by `type`; each may carry `native`, the
provider's own JSON of it, which is replayed unchanged to the provider that it came from (`origin`).
"""

from typing import Any, Literal, TypeAlias

from msgspec import Struct


# `gc=False`: JSON has no cycles for the collector to find.
class Part(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag_field="type"):
    """What all parts share: the provider's own JSON of the part, for a faithful replay."""

    native: Any = None


class TextPart(Part, frozen=True, omit_defaults=True, tag="text"):
    """Text, of the user or of the model."""

    text: str


class ReasoningPart(Part, frozen=True, omit_defaults=True, tag="reasoning"):
    """What the model thought on the way; providers may need its `native` again, others never see it."""

    text: str = ""


class ToolCallPart(Part, frozen=True, omit_defaults=True, tag="tool_call"):
    """The model asks for a tool. `malformed` is what it sent where that was not a JSON object."""

    id: str
    name: str
    arguments: dict[str, Any] = {}
    malformed: str | None = None


class _Media(Part, frozen=True, kw_only=True, omit_defaults=True):
    url: str | None = None
    data: bytes | None = None
    media_type: str | None = None

    def __post_init__(self) -> None:
        if (self.url is None) == (self.data is None):
            raise ValueError("needs either `url` or `data`, not both")
        if self.data is not None and self.media_type is None:
            raise ValueError("inline `data` needs its `media_type`")


class ImagePart(_Media, frozen=True, kw_only=True, omit_defaults=True, tag="image"):
    """An image by `url`, or inline: `data` (base64 in JSON) with its `media_type`."""


class FilePart(_Media, frozen=True, kw_only=True, omit_defaults=True, tag="file"):
    """A file by `url`, or inline: `data` (base64 in JSON) with its `media_type`."""

    name: str | None = None


InputPart: TypeAlias = TextPart | ImagePart | FilePart


class ToolResultPart(Part, frozen=True, omit_defaults=True, tag="tool_result"):
    """What a tool gave back to the model: text, or parts. `is_error`: it failed, and the text says how."""

    call_id: str
    name: str
    content: str | tuple[InputPart, ...]
    is_error: bool = False


AnyPart: TypeAlias = TextPart | ReasoningPart | ToolCallPart | ToolResultPart | ImagePart | FilePart


class Origin(Struct, frozen=True, omit_defaults=True, gc=False):
    """Which model wrote a message: native parts go back verbatim to the same provider and account only."""

    provider: str
    model: str
    account: str = ""


class Usage(Struct, frozen=True, omit_defaults=True, gc=False):
    """Tokens, as the provider counted them. `input_tokens` includes those read from or written to a cache,
    `output_tokens` includes those spent on reasoning.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
        )


class Message(Struct, frozen=True, omit_defaults=True, gc=False):
    """One entry of a session's history. `tool` messages hold the results of the calls before them."""

    role: Literal["user", "assistant", "tool"]
    content: tuple[AnyPart, ...]
    origin: Origin | None = None

    @classmethod
    def user(cls, content: "str | tuple[InputPart, ...]") -> "Message":
        """A user's message of text, or of parts."""
        return cls("user", (TextPart(content),) if isinstance(content, str) else content)

    @classmethod
    def assistant(cls, text: str) -> "Message":
        """A model's message of plain text."""
        return cls("assistant", (TextPart(text),))

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def tool_calls(self) -> tuple[ToolCallPart, ...]:
        """The tool calls, in the order in which the model made them."""
        return tuple(part for part in self.content if isinstance(part, ToolCallPart))
