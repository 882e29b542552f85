"""The wire to Anthropic. The only module that imports the `anthropic` SDK.

The SDK does authentication, URLs, connections and HTTP errors; the answer's bytes are read here, since its
own iterator takes a cut for the end of an answer, and costs several times the CPU.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anthropic
import httpx2

from atto.models.answer_bytes import named, payloads
from atto.models.anthropic_errors import told
from atto.models.failures import Failures
from atto.models.http_client import model_client
from atto.models.per_loop import PerLoop
from atto.protocol.errors import ModelError

ApiKey = str | Callable[[], Awaitable[str]]
_CONNECTIONS = 1000
_ASKED_FOR = "asked-for-at-each-request"


class AnthropicWire:
    """Opens streams of the Messages API. `api_key`: a function that gives one for each request, if any."""

    def __init__(
        self,
        make: Callable[[], anthropic.AsyncAnthropic],
        failures: Failures,
        api_key: Callable[[], Awaitable[str]] | None,
    ) -> None:
        self._clients = PerLoop(make, anthropic.AsyncAnthropic.close)
        self._failures = failures
        self._api_key = api_key

    @asynccontextmanager
    async def open(self, body: dict[str, Any]) -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
        """The payloads of the answer to `body`. The connection is free, or closed, when the block is left,
        however it is left. Raises `ModelError`, here and while the payloads are read.
        """
        client = self._clients.get()
        for secret in (client.api_key, client.auth_token):
            self._failures.hide(secret or "")
        if self._api_key is not None:
            # a copy on the same connections: the SDK knows in which header a key goes, and sends no other
            client = client.with_options(api_key=await self._fresh_key(self._api_key))
        try:
            # everything goes into `extra_body`: the SDK walks typed fields through its own type annotations
            posted = client.messages.with_streaming_response.create(
                model=body["model"],
                max_tokens=body["max_tokens"],
                messages=(),
                stream=True,
                extra_body=body,
            )
            async with posted as response, aclosing(payloads(response, self._failures)) as answer:
                yield answer
        except anthropic.AnthropicError as error:
            raise self._map(error) from None

    async def aclose(self) -> None:
        """Closes the client of the running loop."""
        await self._clients.aclose()

    async def _fresh_key(self, api_key: Callable[[], Awaitable[str]]) -> str:
        key = await api_key()
        if not (key.isascii() and key.isprintable()):
            # the HTTP library would repeat it in its error
            raise self._failures.refused("the API key holds characters that cannot be sent")
        self._failures.hide(key)
        return key

    def _map(self, error: anthropic.AnthropicError) -> ModelError:
        if isinstance(error, anthropic.APIStatusError):
            return self._failures.status(error.status_code, error.response.headers, told(error.body))
        if isinstance(error, anthropic.APITimeoutError):
            return self._failures.cut("no answer in time")
        if isinstance(error, anthropic.APIConnectionError):
            return self._failures.cut(f"no connection: {named(error.__cause__ or error)}")
        return self._failures.refused(named(error))


def own_client(
    *, api_key: ApiKey, base_url: str, connect_timeout: float, read_timeout: float
) -> Callable[[], anthropic.AsyncAnthropic]:
    """Makes clients without retries (the gateway's policy rules), with room for a thousand streams, and
    without the spans and headers that the SDK's own telemetry would add.
    """
    timeout = httpx2.Timeout(read_timeout, connect=connect_timeout)
    limits = httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)

    def make() -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(
            api_key=api_key if isinstance(api_key, str) else _ASKED_FOR,
            auth_token=None,
            base_url=base_url,
            timeout=timeout,
            max_retries=0,
            http_client=model_client(timeout, limits),
            open_telemetry=False,
        )

    return make
