"""How many tokens a call may use, guessed before it is made."""

from atto.models import ModelRequest
from atto.protocol.messages import Message, ReasoningPart, TextPart, ToolCallPart, ToolResultPart

_CHARACTERS = 4
"""Of a token, about, in English; the guess is corrected by what the provider counts."""
_MEDIA = 1000
"""Tokens of an image or a file, about; a provider's true price depends on its size and its own rules."""
_ANSWER = 1000
"""Tokens of an answer whose length nothing limits."""


def estimate(request: ModelRequest) -> int:
    """Input and output: a quarter of the characters, and `max_tokens`."""
    characters = len(request.instruction) + sum(len(str(spec)) for spec in request.tools)
    media = 0
    for message in request.messages:
        message_characters, message_media = _weigh(message)
        characters += message_characters
        media += message_media
    return characters // _CHARACTERS + media * _MEDIA + (request.max_tokens or _ANSWER)


def _weigh(message: Message) -> tuple[int, int]:
    """Characters, and images and files."""
    characters = media = 0
    for part in message.content:
        match part:
            case TextPart(text=text) | ReasoningPart(text=text):
                characters += len(text)
            case ToolCallPart(arguments=arguments):
                characters += len(str(arguments))
            case ToolResultPart(content=str(content)):
                characters += len(content)
            case ToolResultPart(content=content):
                characters += sum(len(item.text) for item in content if isinstance(item, TextPart))
            case _:
                media += 1
    return characters, media
