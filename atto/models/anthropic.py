"""Claude, through Anthropic's Messages API."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from atto.models.anthropic_request import going_on, messages_body
from atto.models.anthropic_stream import MessagesReader
from atto.models.base import Chunk, ModelRequest
from atto.models.failures import Failures
from atto.models.late import late_chunks
from atto.models.media_urls import MEDIA_URLS, allowed_urls, check_media
from atto.models.options import checked, checked_tools, own_options
from atto.protocol.errors import InvalidAgent, MissingExtra
from atto.protocol.messages import Origin

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

    from atto.models.anthropic_http import AnthropicWire

MAX_TOKENS = 8192
"""Tokens of an answer where nobody says otherwise. The API wants a number; all current models take this."""

MAX_PAUSES = 16
"""How often a turn that the provider paused is gone on with."""

_ANTHROPIC = "https://api.anthropic.com"
_HOST = ".anthropic.com"
_NO_KEY = "no-key-needed"


class Anthropic:
    """A model behind the Messages API: Anthropic, and servers that speak as it does.

    What the model thought is signed, and goes back as it came. The prompt is cached wherever a request has
    a `cache_key` (a run's have): `options={"cache_control": None}` turns that off, `{"type": "ephemeral",
    "ttl": "1h"}` in the place of None keeps it for longer.

    `api_key`: a string, or an async function that gives one for each request; else `ANTHROPIC_API_KEY`.
    `base_url`: without the version; else `ANTHROPIC_BASE_URL`, else Anthropic. A server that is not
    Anthropic's needs no key. Raises `InvalidAgent` without a key, and `MissingExtra` without the `anthropic`
    package, which is loaded by the first stream, not before.

    `account`: tells apart accounts with one provider (see `Origin`). `max_tokens`: of an answer, where the
    agent sets none; what the model thinks counts. `connect_timeout`, `read_timeout`: seconds until the
    connection stands, and between two bytes.
    `options`: fields for the body of every request, such as `{"thinking": {"type": "enabled",
    "budget_tokens": 4000}}`; `output_config` is added to what is sent anyway, and None takes a field away.
    `media_urls`: addresses of images and files that may go to the provider: schemes, of public hosts only,
    and `scheme://host/path` for all below it.
    `client`: an `AsyncAnthropic` of your own, instead of key, URL and time-outs. Its retries are turned off.
    It serves one event loop, and you close it; otherwise each loop gets its own, until `aclose`.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str | Callable[[], Awaitable[str]] | None = None,
        base_url: str | None = None,
        account: str = "",
        max_tokens: int = MAX_TOKENS,
        connect_timeout: float = 10.0,
        read_timeout: float = 600.0,
        options: Mapping[str, Any] | None = None,
        media_urls: Collection[str] = MEDIA_URLS,
        client: "AsyncAnthropic | None" = None,
    ) -> None:
        if find_spec("anthropic") is None:
            raise MissingExtra("Anthropic needs the anthropic package: pip install 'atto-agents[anthropic]'")
        if client is not None and (api_key is not None or base_url is not None):
            raise InvalidAgent("Anthropic takes either `client`, or `api_key` and `base_url`, not both")
        if max_tokens < 1:
            raise InvalidAgent(f"Anthropic: max_tokens is {max_tokens}: give at least 1")
        self._client = client
        self._base_url = _address(base_url) if client is None else str(client.base_url)
        self._api_key = _key(api_key, self._base_url) if client is None else ""
        self._max_tokens = max_tokens
        self._timeouts = connect_timeout, read_timeout
        self._options = own_options("Anthropic", options)
        self._media_urls = allowed_urls("Anthropic", media_urls)
        self._origin = Origin(_provider(self._base_url), model, account)
        self._failures = Failures(f"{self._origin.provider}/{model}")
        self._wire_made: AnthropicWire | None = None

    def __repr__(self) -> str:
        return f"Anthropic({self._origin.model!r}, provider={self._origin.provider!r})"

    @property
    def origin(self) -> Origin:
        """The provider is `anthropic`, followed by the server's address where that is not Anthropic's."""
        return self._origin

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Chunk, None]:
        """One request, no retries; more where the provider pauses its own turn (`pause_turn`), which it does
        between tools that it runs itself: the answer is sent back, at most MAX_PAUSES times, and goes on.
        Leaving it early closes the connection.
        """
        checked(self._failures, request.options)
        check_media(request.messages, self._media_urls, self._failures)
        body = messages_body(request, origin=self._origin, max_tokens=self._max_tokens, options=self._options)
        checked_tools(self._failures, body.get("tools"))
        reader = MessagesReader(self._failures)
        for _ in range(MAX_PAUSES + 1):
            async with aclosing(self._answer(body, reader)) as chunks:
                async for chunk in chunks:
                    yield chunk
            if not reader.paused:
                break
            for chunk in reader.begin_again():
                yield chunk
            body = going_on(body, reader.blocks, reader.container)
        else:
            raise self._failures.refused(f"the provider paused its turn more than {MAX_PAUSES} times")
        for chunk in reader.end():
            yield chunk

    async def _answer(self, body: dict[str, Any], reader: MessagesReader) -> AsyncGenerator[Chunk, None]:
        async with self._wire().open(body) as payloads:
            async for payload in payloads:
                for chunk in reader.read(payload):
                    yield chunk
                if reader.finished:
                    break
            async with aclosing(late_chunks(payloads, reader)) as late:
                async for chunk in late:
                    yield chunk

    async def aclose(self) -> None:
        """Closes the connections of the running event loop; a later stream opens new ones."""
        if self._wire_made is not None and self._client is None:
            await self._wire_made.aclose()

    def _wire(self) -> "AnthropicWire":
        if self._wire_made is None:
            from atto.models import anthropic_http  # noqa: PLC0415 - loads the SDK: 2 s and 66 MB

            fresh = self._api_key if callable(self._api_key) else None
            self._wire_made = anthropic_http.AnthropicWire(self._maker(), self._failures, fresh)
        return self._wire_made

    def _maker(self) -> "Callable[[], AsyncAnthropic]":
        from atto.models import anthropic_http  # noqa: PLC0415 - as above

        if self._client is not None:
            without_retries = self._client.with_options(max_retries=0, open_telemetry=False)
            return lambda: without_retries
        connect, read = self._timeouts
        return anthropic_http.own_client(
            api_key=self._api_key, base_url=self._base_url, connect_timeout=connect, read_timeout=read
        )


def _key(
    api_key: str | Callable[[], Awaitable[str]] | None, base_url: str
) -> str | Callable[[], Awaitable[str]]:
    if callable(api_key):
        return api_key
    key = (os.environ.get("ANTHROPIC_API_KEY", "") if api_key is None else api_key).strip()
    if not key and _provider(base_url) != "anthropic":
        return _NO_KEY
    if not key:
        raise InvalidAgent("Anthropic has no key: set ANTHROPIC_API_KEY or pass `api_key`")
    if not (key.isascii() and key.isprintable()):
        raise InvalidAgent("Anthropic: the API key holds characters that cannot be sent")
    return key


def _address(base_url: str | None) -> str:
    url = (base_url or os.environ.get("ANTHROPIC_BASE_URL", "")).strip().rstrip("/")
    url = url.removesuffix("/v1")  # the SDK adds it
    parts = urlsplit(url or _ANTHROPIC)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidAgent("Anthropic: the base URL is not like https://host")
    return url or _ANTHROPIC


def _provider(base_url: str) -> str:
    url = urlsplit(base_url)
    by_anthropic = f".{url.hostname or ''}".endswith(_HOST)
    return "anthropic" if by_anthropic else f"anthropic@{url.netloc.rpartition('@')[2]}"
