"""Models of OpenAI, and of every server that speaks its Chat Completions API."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from atto.models.base import Chunk, ModelRequest
from atto.models.chat_request import chat_body
from atto.models.chat_stream import ChatReader
from atto.models.failures import Failures
from atto.protocol.errors import InvalidAgent, MissingExtra, ModelError
from atto.protocol.messages import Origin

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from atto.models.openai_http import ChatWire

_OPENAI = "https://api.openai.com/v1"
_OPENAI_HOSTS = ("api.openai.com", ".api.openai.com", ".openai.azure.com")
_NO_KEY = "no-key-needed"
_TRAILING = 5.0
_CLOSING = 0.25


class OpenAIChat:
    """A model behind the Chat Completions API: OpenAI, Azure's v1 endpoint, Ollama, vLLM, and the like.

    `api_key`: a string, or an async function that gives one for each request; else `OPENAI_API_KEY`.
    `base_url`: with the version, such as `http://localhost:11434/v1`; else `OPENAI_BASE_URL`, else OpenAI.
    A server that needs no key gets a placeholder. Raises `InvalidAgent` if there is neither key nor URL, and
    `MissingExtra` without the `openai` package, which is loaded by the first stream, not before.

    `account`: tells apart accounts with one provider (see `Origin`).
    `connect_timeout`, `read_timeout`: seconds until the connection stands, and between two bytes.
    `options`: fields for the body of every request; one that is None takes the field away.
    `client`: an `AsyncOpenAI` of your own, instead of key, URL and time-outs. Its retries are turned off. It
    serves one event loop, and you close it; otherwise each loop gets its own, until `aclose`.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str | Callable[[], Awaitable[str]] | None = None,
        base_url: str | None = None,
        account: str = "",
        connect_timeout: float = 10.0,
        read_timeout: float = 600.0,
        options: Mapping[str, Any] | None = None,
        client: "AsyncOpenAI | None" = None,
    ) -> None:
        if find_spec("openai") is None:
            raise MissingExtra("OpenAIChat needs the openai package: pip install 'atto-agents[openai]'")
        if client is not None and (api_key is not None or base_url is not None):
            raise InvalidAgent("OpenAIChat takes either `client`, or `api_key` and `base_url`, not both")
        self._client = client
        self._api_key, self._base_url = _access(api_key, base_url) if client is None else ("", "")
        url = _checked(self._base_url if client is None else str(client.base_url))
        self._by_openai = _is_openai(url.hostname or "")
        self._origin = Origin(_provider(url, by_openai=self._by_openai), model, account)
        self._timeouts = connect_timeout, read_timeout
        self._options = dict(options or {})
        self._failures = Failures(f"{self._origin.provider}/{model}")
        self._wire_made: ChatWire | None = None

    def __repr__(self) -> str:
        return f"OpenAIChat({self._origin.model!r}, provider={self._origin.provider!r})"

    @property
    def origin(self) -> Origin:
        """The provider is `openai-chat`, followed by the server's address where that is not OpenAI."""
        return self._origin

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Chunk, None]:
        """One request, no retries. Leaving it early closes the connection."""
        body = chat_body(request, origin=self._origin, by_openai=self._by_openai, options=self._options)
        reader = ChatReader(self._failures)
        async with self._wire().open(body) as payloads:
            async for payload in payloads:
                for chunk in reader.read(payload):
                    yield chunk
                if reader.finished or reader.done:
                    break
            await _read_rest(payloads, reader)
        for chunk in reader.end():
            yield chunk

    async def aclose(self) -> None:
        """Closes the connections of the running event loop; a later stream opens new ones."""
        if self._wire_made is not None and self._client is None:
            await self._wire_made.aclose()

    def _wire(self) -> "ChatWire":
        if self._wire_made is None:
            from atto.models import openai_http  # noqa: PLC0415 - loads the SDK: 0.6 s and 40 MB

            self._wire_made = openai_http.ChatWire(self._maker(), self._failures)
        return self._wire_made

    def _maker(self) -> "Callable[[], AsyncOpenAI]":
        from atto.models import openai_http  # noqa: PLC0415 - as above

        if self._client is not None:
            without_retries = self._client.with_options(max_retries=0)
            return lambda: without_retries
        connect, read = self._timeouts
        return openai_http.own_client(
            api_key=self._api_key, base_url=self._base_url, connect_timeout=connect, read_timeout=read
        )


async def _read_rest(payloads: AsyncGenerator[bytes, None], reader: ChatReader) -> None:
    """Reads on after the answer is complete: for the usage, and to the end, so that the connection can serve
    again. Neither is worth a failure, nor a wait for a server that does not hang up.
    """
    try:
        async with asyncio.timeout(_CLOSING if reader.done else _TRAILING) as patience:
            async for payload in payloads:
                reader.read(payload)
                if reader.done:
                    patience.reschedule(asyncio.get_running_loop().time() + _CLOSING)
    except (TimeoutError, ModelError):
        return


def _access(
    api_key: str | Callable[[], Awaitable[str]] | None, base_url: str | None
) -> tuple[str | Callable[[], Awaitable[str]], str]:
    url = (base_url or os.environ.get("OPENAI_BASE_URL", "")).strip()
    key = os.environ.get("OPENAI_API_KEY", "") if api_key is None else api_key
    key = key.strip() if isinstance(key, str) else key
    if not key and not url:
        raise InvalidAgent(
            "OpenAIChat has no key: set OPENAI_API_KEY or pass `api_key`; or, for a compatible server, "
            "set OPENAI_BASE_URL or pass `base_url`"
        )
    if isinstance(key, str) and not (key.isascii() and key.isprintable()):
        raise InvalidAgent("OpenAIChat: the API key holds characters that cannot be sent")
    return key or _NO_KEY, url or _OPENAI


def _checked(base_url: str) -> SplitResult:
    url = urlsplit(base_url)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise InvalidAgent("OpenAIChat: the base URL is not like https://host/v1")
    return url


def _is_openai(host: str) -> bool:
    return any(host == known or (known[0] == "." and host.endswith(known)) for known in _OPENAI_HOSTS)


def _provider(url: SplitResult, *, by_openai: bool) -> str:
    return "openai-chat" if by_openai else f"openai-chat@{url.netloc.rpartition('@')[2]}"
