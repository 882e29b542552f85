"""How the adapters of OpenAI's APIs reach a server: key, address, client, and who answers there."""

import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, urlsplit

from atto.models.failures import Failures
from atto.protocol.errors import InvalidAgent, MissingExtra
from atto.protocol.messages import Origin

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from atto.models.openai_http import OpenAIWire

_OPENAI = "https://api.openai.com/v1"
_OPENAI_HOSTS = ("api.openai.com", ".api.openai.com", ".openai.azure.com")
_NO_KEY = "no-key-needed"


class OpenAIAccess:
    """One adapter's way to its server. `adapter`: its name, for messages. `provider`: its origin's, where
    OpenAI itself answers.

    `by_openai`: OpenAI's own API, at OpenAI or Azure, which has newer fields than those that speak like it.
    """

    def __init__(
        self,
        adapter: str,
        model: str,
        *,
        api: Literal["chat", "responses"],
        provider: Callable[[SplitResult, bool], str],
        api_key: str | Callable[[], Awaitable[str]] | None,
        base_url: str | None,
        account: str,
        connect_timeout: float,
        read_timeout: float,
        client: "AsyncOpenAI | None",
    ) -> None:
        if find_spec("openai") is None:
            raise MissingExtra(f"{adapter} needs the openai package: pip install 'atto-agents[openai]'")
        if client is not None and (api_key is not None or base_url is not None):
            raise InvalidAgent(f"{adapter} takes either `client`, or `api_key` and `base_url`, not both")
        self._client = client
        self._api: Literal["chat", "responses"] = api
        self._api_key, self._base_url = _access(adapter, api_key, base_url) if client is None else ("", "")
        url = _checked(adapter, self._base_url if client is None else str(client.base_url))
        self.by_openai = _is_openai(url.hostname or "")
        self.origin = Origin(provider(url, self.by_openai), model, account)
        self.failures = Failures(f"{self.origin.provider}/{model}")
        self._timeouts = connect_timeout, read_timeout
        self._wire_made: OpenAIWire | None = None

    def open(self, body: dict[str, Any]) -> AbstractAsyncContextManager[AsyncGenerator[bytes, None]]:
        """The payloads of the answer to `body`: see `OpenAIWire.open`."""
        return self._wire().open(body)

    async def aclose(self) -> None:
        """Closes the connections of the running event loop; a later stream opens new ones."""
        if self._wire_made is not None and self._client is None:
            await self._wire_made.aclose()

    def _wire(self) -> "OpenAIWire":
        if self._wire_made is None:
            from atto.models import openai_http  # noqa: PLC0415 - loads the SDK: 0.6 s and 40 MB

            self._wire_made = openai_http.OpenAIWire(self._maker(), self.failures, self._api)
        return self._wire_made

    def _maker(self) -> "Callable[[], AsyncOpenAI]":
        from atto.models import openai_http  # noqa: PLC0415 - as above

        if self._client is not None:
            without_retries = self._client.with_options(max_retries=0)
            return lambda: without_retries
        connect, read = self._timeouts
        key = self._api_key if isinstance(self._api_key, str) else partial(self._fresh_key, self._api_key)
        return openai_http.own_client(
            api_key=key, base_url=self._base_url, connect_timeout=connect, read_timeout=read
        )

    async def _fresh_key(self, api_key: Callable[[], Awaitable[str]]) -> str:
        key = await api_key()
        if not (key.isascii() and key.isprintable()):
            # the HTTP library would repeat it in its error
            raise self.failures.refused("the API key holds characters that cannot be sent")
        self.failures.hide(key)
        return key


def server_of(url: SplitResult) -> str:
    """Host and port, without credentials."""
    return url.netloc.rpartition("@")[2]


def _access(
    adapter: str, api_key: str | Callable[[], Awaitable[str]] | None, base_url: str | None
) -> tuple[str | Callable[[], Awaitable[str]], str]:
    url = (base_url or os.environ.get("OPENAI_BASE_URL", "")).strip()
    key = os.environ.get("OPENAI_API_KEY", "") if api_key is None else api_key
    key = key.strip() if isinstance(key, str) else key
    if not key and not url:
        raise InvalidAgent(
            f"{adapter} has no key: set OPENAI_API_KEY or pass `api_key`; or, for a compatible server, "
            "set OPENAI_BASE_URL or pass `base_url`"
        )
    if isinstance(key, str) and not (key.isascii() and key.isprintable()):
        raise InvalidAgent(f"{adapter}: the API key holds characters that cannot be sent")
    return key or _NO_KEY, url or _OPENAI


def _checked(adapter: str, base_url: str) -> SplitResult:
    url = urlsplit(base_url)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise InvalidAgent(f"{adapter}: the base URL is not like https://host/v1")
    return url


def _is_openai(host: str) -> bool:
    return any(host == known or (known[0] == "." and host.endswith(known)) for known in _OPENAI_HOSTS)
