"""How servers that speak Chat Completions differ in what they take of a history."""

import re
from dataclasses import dataclass

from atto.protocol.messages import Origin

_MISTRAL = re.compile(
    r"(?:.*/)?(?:open-)?(?:mistral|magistral|ministral|mixtral|codestral|devstral|pixtral)", re.IGNORECASE
)
_THINKS_ALOUD = re.compile(r"(?:.*/)?(?:deepseek-(?!chat)|kimi-)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Manners:
    """`nine`: ids of calls are nine letters and digits. `answers_results`: the assistant speaks between
    results and the user. `takes_media`: images and files. `thinks_aloud`: what the assistant said needs
    the reasoning that led to it.
    """

    nine: bool = False
    answers_results: bool = False
    takes_media: bool = True
    thinks_aloud: bool = False


def manners_of(origin: Origin) -> Manners:
    """Those of the server and the model, by their names: Mistral's own API and what serves its models
    elsewhere with their template, DeepSeek, Kimi.
    """
    host = origin.provider.partition("@")[2]
    mistral = host.endswith("mistral.ai") or _MISTRAL.match(origin.model) is not None
    deepseek = host.endswith("deepseek.com")
    return Manners(
        nine=mistral,
        answers_results=mistral,
        takes_media=not deepseek,
        thinks_aloud=_THINKS_ALOUD.match(origin.model) is not None,
    )
