"""OpenAI's own models, through its Responses API."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

from atto.models.base import Chunk, ModelRequest
from atto.models.late import late_chunks
from atto.models.media_urls import MEDIA_URLS, allowed_urls, check_media
from atto.models.openai_access import OpenAIAccess, server_of
from atto.models.options import checked, checked_tools, own_options
from atto.models.responses_request import responses_body
from atto.models.responses_stream import ResponsesReader
from atto.protocol.messages import Origin

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class OpenAIResponses:
    """A model behind the Responses API: OpenAI, and Azure's v1 endpoint.

    Nothing is stored at the provider. What a model thought comes back encrypted and is sent again, so that it
    can go on from there. A request with `stop` is refused: the API has no such thing, `OpenAIChat` has.

    `api_key`: a string, or an async function that gives one for each request; else `OPENAI_API_KEY`.
    `base_url`: with the version, such as `https://eu.api.openai.com/v1`; else `OPENAI_BASE_URL`, else OpenAI.
    A server that needs no key gets a placeholder. Raises `InvalidAgent` if there is neither key nor URL, and
    `MissingExtra` without the `openai` package, which is loaded by the first stream, not before.

    `account`: tells apart accounts with one provider (see `Origin`).
    `connect_timeout`, `read_timeout`: seconds until the connection stands, and between two bytes.
    `options`: fields for the body of every request, such as `{"reasoning": {"effort": "low", "summary":
    "auto"}}`. `text` and `include` are added to what is sent anyway; None takes a field away.
    `media_urls`: addresses of images and files that may go to the provider: schemes, of public hosts only,
    and `scheme://host/path` for all below it.
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
        media_urls: Collection[str] = MEDIA_URLS,
        client: "AsyncOpenAI | None" = None,
    ) -> None:
        self._access = OpenAIAccess(
            "OpenAIResponses",
            model,
            api="responses",
            provider=_provider,
            api_key=api_key,
            base_url=base_url,
            account=account,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            client=client,
        )
        self._options = own_options("OpenAIResponses", options)
        self._media_urls = allowed_urls("OpenAIResponses", media_urls)

    def __repr__(self) -> str:
        return f"OpenAIResponses({self.origin.model!r}, provider={self.origin.provider!r})"

    @property
    def origin(self) -> Origin:
        """The provider is `openai`, followed by the server's address where that is not OpenAI's own: what one
        encrypted, another cannot read.
        """
        return self._access.origin

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Chunk, None]:
        """One request, no retries. Leaving it early closes the connection."""
        access = self._access
        if request.stop:
            raise access.failures.refused(
                "the Responses API takes no `stop`: leave it out, or use OpenAIChat"
            )
        checked(access.failures, request.options)
        check_media(request.messages, self._media_urls, access.failures)
        body = responses_body(request, origin=self.origin, by_openai=access.by_openai, options=self._options)
        checked_tools(access.failures, body.get("tools"))
        reader = ResponsesReader(access.failures)
        async with access.open(body) as payloads:
            async for payload in payloads:
                for chunk in reader.read(payload):
                    yield chunk
                if reader.done:
                    break
            async with aclosing(late_chunks(payloads, reader)) as late:
                async for chunk in late:
                    yield chunk
        for chunk in reader.end():
            yield chunk

    async def aclose(self) -> None:
        """Closes the connections of the running event loop; a later stream opens new ones."""
        await self._access.aclose()


def _provider(url: SplitResult, by_openai: bool) -> str:
    by_azure = (url.hostname or "").endswith(".azure.com")
    return "openai" if by_openai and not by_azure else f"openai@{server_of(url)}"
