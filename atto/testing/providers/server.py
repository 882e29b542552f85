"""One server on loopback that plays every provider, each under its own host, and refuses as they do."""

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from atto.testing.model_dialect import Said
from atto.testing.model_server import ModelServer, Reply, Request
from atto.testing.providers import (
    anthropic,
    deepseek,
    gemini,
    groq,
    mistral,
    openai_chat,
    openai_responses,
    openrouter,
)
from atto.testing.providers.rule import Ask, Json, Refused, Rule, Violation, violates

if TYPE_CHECKING:
    from httpx2 import AsyncClient


@dataclass(frozen=True)
class Provider:
    """An API: where it is served, what it refuses, how it words an error and an answer."""

    name: str
    host: str
    path: str
    rules: tuple[Rule, ...]
    error_body: Callable[[Violation], Json]
    answer: Callable[[Said, Ask], list[bytes]]


PROVIDERS: Mapping[str, Provider] = MappingProxyType(
    {
        name: Provider(name, host, path, module.RULES, module.error_body, module.answer)
        for name, host, path, module in (
            ("openai-responses", "api.openai.com", "/responses", openai_responses),
            ("openai-chat", "api.openai.com", "/chat/completions", openai_chat),
            ("deepseek", "api.deepseek.com", "/chat/completions", deepseek),
            ("openrouter", "openrouter.ai", "/chat/completions", openrouter),
            ("groq", "api.groq.com", "/chat/completions", groq),
            ("mistral", "api.mistral.ai", "/chat/completions", mistral),
            ("anthropic", "api.anthropic.com", "/messages", anthropic),
            ("gemini", "generativelanguage.googleapis.com", ":streamGenerateContent", gemini),
        )
    }
)
"""The APIs that are known, by name."""

_OK = Said(("ok",))


class RuleServer(ModelServer):
    """Serves while the block lasts. Give the adapter a client of `client()`, with the provider's own address:

        async with RuleServer() as server, server.client() as http:
            model = Anthropic("claude-sonnet-5-5", client=AsyncAnthropic(api_key="one", http_client=http))

    A request that breaks a rule gets the provider's error, and stands in `refused`. Any other gets the next
    answer of those that were added by `say` (or a `Reply`, as it is), else a short one. `Said` is worded as
    the provider would: with its ids where a call has none, its signatures, its way to show reasoning.
    """

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[Refused] = []
        self._script: deque[Said | Reply] = deque()
        self.respond = self._respond

    def say(self, *answers: Said | Reply) -> None:
        """Adds answers to those that are given, in order."""
        self._script.extend(answers)

    def fail(self, status: int = 503) -> None:
        """Adds the answer of a provider that is overloaded."""
        body = json.dumps({"error": {"message": "overloaded", "type": "server_error"}}).encode()
        self.say(Reply.of(body, status=status, content_type="application/json"))

    def clear(self) -> None:
        """Forgets what was asked and refused, and the answers that were not given."""
        self.requests.clear()
        self.refused.clear()
        self._script.clear()

    def client(self) -> "AsyncClient":
        """A client of `httpx2` whose requests to any host come here, each by a connection of its own. You
        close it.
        """
        from httpx2 import AsyncClient, AsyncHTTPTransport, Limits, Request, Response  # noqa: PLC0415 - of the SDKs

        here = self.url

        class Detour(AsyncHTTPTransport):
            async def handle_async_request(self, request: Request) -> Response:
                scheme, _, address = here.partition("://")
                host, _, port = address.partition(":")
                request.url = request.url.copy_with(scheme=scheme, host=host, port=int(port))
                return await super().handle_async_request(request)

        return AsyncClient(transport=Detour(verify=False, limits=Limits(max_keepalive_connections=0)))

    def _respond(self, request: Request) -> Reply:
        provider = _provider(request)
        ask = Ask(request.body, _model(request), _account(request.headers))
        broken = violates(provider.rules, ask)
        if broken is not None:
            self.refused.append(Refused(provider.name, *broken, request.body))
            return _refusal(provider, broken[1])
        answer = self._script.popleft() if self._script else _OK
        return answer if isinstance(answer, Reply) else Reply.of(*provider.answer(answer, ask))


def _provider(request: Request) -> Provider:
    host = request.headers.get("host", "").partition(":")[0]
    path = request.path.partition("?")[0]
    for provider in PROVIDERS.values():
        if provider.host == host and path.endswith(provider.path):
            return provider
    raise LookupError(f"no provider is served at {host}{path}")


def _model(request: Request) -> str:
    """Gemini's stands in the path."""
    if "model" in request.body:
        return str(request.body["model"])
    return request.path.rpartition("/")[2].partition(":")[0]


def _account(headers: Mapping[str, str]) -> str:
    names = ("x-api-key", "x-goog-api-key", "authorization")
    return next((headers[name].removeprefix("Bearer ") for name in names if headers.get(name)), "")


def _refusal(provider: Provider, violation: Violation) -> Reply:
    body: Any = provider.error_body(violation)
    return Reply.of(json.dumps(body).encode(), status=violation.status, content_type="application/json")
