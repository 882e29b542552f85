"""The wire to a server that speaks an API of OpenAI's. The only module that imports the `openai` SDK.

The SDK does authentication, URLs, connections and HTTP errors; the answer's bytes are read here, since its
own iterator hides `[DONE]` and takes an error object or a cut for the end of an answer.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, Literal, TypeAlias

import httpx2
import openai

from atto.models.answer_bytes import named, payloads
from atto.models.failures import Failures
from atto.models.http_client import model_client
from atto.models.per_loop import PerLoop
from atto.protocol.errors import ModelError

ApiKey = str | Callable[[], Awaitable[str]]
Api = Literal["chat", "responses"]
_Response: TypeAlias = openai.AsyncAPIResponse[Any]


class OpenAIWire:
    """Opens streams of one API: Chat Completions or Responses."""

    def __init__(self, make: Callable[[], openai.AsyncOpenAI], failures: Failures, api: Api) -> None:
        self._clients = PerLoop(make, openai.AsyncOpenAI.close)
        self._failures = failures
        self._api = api

    @asynccontextmanager
    async def open(self, body: dict[str, Any]) -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
        """The payloads of the answer to `body`. The connection is free, or closed, when the block is left,
        however it is left. Raises `ModelError`, here and while the payloads are read.
        """
        client = self._clients.get()
        try:
            async with self._post(client, body) as response:
                self._failures.hide(client.api_key)
                async with aclosing(payloads(response, self._failures)) as answer:
                    yield answer
        except openai.OpenAIError as error:
            self._failures.hide(client.api_key)
            raise self._map(error) from None

    async def aclose(self) -> None:
        """Closes the client of the running loop."""
        await self._clients.aclose()

    def _post(
        self, client: openai.AsyncOpenAI, body: dict[str, Any]
    ) -> AbstractAsyncContextManager[_Response]:
        # everything goes into `extra_body`: the SDK walks typed fields through its own type annotations,
        # which holds up the event loop for 0.1 ms a message (measured with openai 3.54)
        if self._api == "responses":
            return client.responses.with_streaming_response.create(stream=True, extra_body=body)
        return client.chat.completions.with_streaming_response.create(
            model=body["model"], messages=(), stream=True, extra_body=body
        )

    def _map(self, error: openai.OpenAIError) -> ModelError:
        if isinstance(error, openai.APIStatusError):
            return self._failures.status(error.status_code, error.response.headers, error.body)
        if isinstance(error, openai.APITimeoutError):
            return self._failures.cut("no answer in time")
        if isinstance(error, openai.APIConnectionError):
            return self._failures.cut(f"no connection: {named(error.__cause__ or error)}")
        return self._failures.refused(named(error))


def own_client(
    *, api_key: ApiKey, base_url: str, connect_timeout: float, read_timeout: float
) -> Callable[[], openai.AsyncOpenAI]:
    """Makes clients without retries (the gateway's policy rules) and with room for a thousand streams."""
    timeout = httpx2.Timeout(read_timeout, connect=connect_timeout)

    def make() -> openai.AsyncOpenAI:
        # not the SDK's default client, which closes itself on whatever loop runs when it is collected
        http = model_client(timeout, openai.DEFAULT_CONNECTION_LIMITS)
        return openai.AsyncOpenAI(
            api_key=api_key, base_url=base_url, timeout=timeout, max_retries=0, http_client=http
        )

    return make
