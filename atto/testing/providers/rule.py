"""Rules as data: what a provider refuses, in whose words, and where that is written."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Literal, NamedTuple, TypeAlias, cast

Json: TypeAlias = dict[str, Any]

Evidence: TypeAlias = Literal["documented", "seen", "inferred"]
"""`documented`: by the provider or in its SDK. `seen`: in an error report. `inferred`: from those."""


@dataclass(frozen=True)
class Ask:
    """A request as its provider sees it. `account`: its key."""

    body: Json
    model: str
    account: str = ""

    def items(self, *path: str) -> list[Any]:
        """The list at `path` of the body; empty where there is none."""
        value: Any = self.body
        for name in path:
            value = cast("Json", value).get(name) if isinstance(value, dict) else None
        return cast("list[Any]", value) if isinstance(value, list) else []


@dataclass(frozen=True)
class Violation:
    """What is wrong with a request, in the provider's words."""

    message: str
    param: str | None = None
    code: str | None = None
    status: int = 400


@dataclass(frozen=True)
class Rule:
    """`name`: a sentence on what is refused. `check`: the violations of a request, the first one first."""

    name: str
    evidence: Evidence
    source: str
    check: Callable[[Ask], Iterator[Violation]]


class Refused(NamedTuple):
    """A request that was refused: by which provider, by which of its rules, in which words."""

    provider: str
    rule: Rule
    violation: Violation
    body: Json


class Seal(NamedTuple):
    """Who signed what: a provider takes back only what it signed itself, for the same model and account."""

    provider: str
    model: str
    account: str
    content: str

    def token(self) -> str:
        """A signature that says so."""
        return base64.b64encode(json.dumps(self).encode()).decode()

    @classmethod
    def read(cls, token: object) -> "Seal | None":
        """What a signature says. None: nobody here made it."""
        if not isinstance(token, str):
            return None
        try:
            return cls(*json.loads(base64.b64decode(token, validate=True)))
        except (ValueError, TypeError):
            return None


def seal(provider: str, ask: Ask, content: object) -> str:
    """A signature of `content` by the model that is asked."""
    return Seal(provider, ask.model, ask.account, digest(content)).token()


def is_sealed(token: object, provider: str, ask: Ask, content: object) -> bool:
    """Whether the model that is asked made the signature, of this content, for this account."""
    return Seal.read(token) == Seal(provider, ask.model, ask.account, digest(content))


def digest(content: object) -> str:
    """Tells contents apart."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Answered:
    """What a provider answers with: its events as bytes."""

    events: list[bytes] = field(default_factory=list[bytes])


def violates(rules: tuple[Rule, ...], ask: Ask) -> tuple[Rule, Violation] | None:
    """The first rule that the request breaks."""
    for rule in rules:
        for violation in rule.check(ask):
            return rule, violation
    return None


def sse(*payloads: Mapping[str, Any], named: bool = False) -> list[bytes]:
    """Payloads as events of a stream."""
    return [
        (b"event: " + str(payload["type"]).encode() + b"\n" if named else b"")
        + b"data: "
        + json.dumps(payload, ensure_ascii=False).encode()
        + b"\n\n"
        for payload in payloads
    ]
