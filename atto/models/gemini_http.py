"""The wire to Gemini, at AI Studio and at Vertex AI. The only module that imports the `google-genai` SDK.

The SDK does what it is needed for: addresses, keys, access tokens and their renewal. The bytes of the body
and of the answer are ours. Both come to pass through public doors: the SDK takes an HTTP client of one's own,
and that takes a transport, here one that sends our body to where the SDK would send its own, keeps the
answer, and leaves an empty one to the SDK. For the SDK's own way through an answer loses what a history must
keep and hides what an adapter must see: `Part` drops fields that it does not know, comments and `data:`
without a space make it fail, a cut passes for an end, and leaving a stream keeps its connection until the
garbage collector comes by. It also takes many times the CPU for a chunk.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, cast

import google.auth.credentials
import google.auth.exceptions
import httpx2
import msgspec
from google import genai
from google.genai import types

from atto.models.answer_bytes import MAX_ANSWER
from atto.models.failures import Failures
from atto.models.gemini_errors import http_error
from atto.models.http_client import bound_errors, model_client
from atto.models.per_loop import PerLoop
from atto.models.sse import MAX_EVENT, EventParser
from atto.protocol.errors import ModelError

_STREAMS = 1000
_IDLE = 100
_CREDENTIAL_HEADERS = ("authorization", "x-goog-api-key")


@dataclass(frozen=True)
class Access:
    """Where a model is, and who may call it: a key at AI Studio, or credentials at Vertex AI (None: what
    `google.auth.default` finds in the environment).
    """

    base_url: str | None
    api_version: str | None
    api_key: str | None = field(default=None, repr=False)
    vertex: bool = False
    project: str | None = None
    location: str | None = None
    credentials: google.auth.credentials.Credentials | None = None


@dataclass
class _Exchange:
    body: bytes
    response: httpx2.Response | None = None


_exchange: ContextVar[_Exchange] = ContextVar("gemini_exchange")


class _Transport(httpx2.AsyncBaseTransport):
    """What the SDK sends through: of its request, the address and the headers count."""

    def __init__(self, http: httpx2.AsyncClient, timeout: httpx2.Timeout, failures: Failures) -> None:
        self._http = http
        self._timeout = timeout
        self._failures = failures

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        for name in _CREDENTIAL_HEADERS:
            self._failures.hide(request.headers.get(name, "").removeprefix("Bearer "))
        exchange = _exchange.get()
        headers = request.headers.copy()
        del headers["content-length"]
        sent = self._http.build_request(
            request.method, request.url, content=exchange.body, headers=headers, timeout=self._timeout
        )
        exchange.response = await self._http.send(sent, stream=True, follow_redirects=False)
        return httpx2.Response(200)


class _Connection:
    """One event loop's clients: the SDK's, and the one through which it speaks."""

    def __init__(
        self,
        access: Access,
        *,
        timeout: httpx2.Timeout,
        failures: Failures,
        client: httpx2.AsyncClient | None,
    ) -> None:
        self._own = client is None
        self._http = client or model_client(
            timeout, httpx2.Limits(max_connections=_STREAMS, max_keepalive_connections=_IDLE)
        )
        self._outer = httpx2.AsyncClient(transport=_Transport(self._http, timeout, failures))
        self._sdk = genai.Client(
            enterprise=access.vertex,
            api_key=access.api_key,
            project=access.project,
            location=access.location,
            credentials=access.credentials,
            http_options=types.HttpOptions(
                base_url=access.base_url,
                api_version=access.api_version,
                retry_options=types.HttpRetryOptions(attempts=1),
                httpx_async_client=self._outer,
            ),
        )

    async def send(self, model: str, body: bytes) -> httpx2.Response:
        """The answer to `body`, its own body unread."""
        exchange = _Exchange(body)
        token = _exchange.set(exchange)
        try:
            # the contents only satisfy the SDK; it runs no tools and continues nothing, having seen no answer
            nothing = await self._sdk.aio.models.generate_content_stream(
                model=model,
                contents="-",
                config=types.GenerateContentConfig(
                    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
                    automatic_continuation=False,
                ),
            )
            async for _ in nothing:
                pass
        except BaseException:
            if exchange.response is not None:
                await exchange.response.aclose()
            raise
        finally:
            _exchange.reset(token)
        if exchange.response is None:
            raise RuntimeError("the SDK sent nothing")
        return exchange.response

    async def aclose(self) -> None:
        self._sdk.close()
        await self._outer.aclose()
        if self._own:
            await self._http.aclose()


class GeminiWire:
    """Opens streams."""

    def __init__(
        self,
        access: Access,
        *,
        connect_timeout: float,
        read_timeout: float,
        failures: Failures,
        client: httpx2.AsyncClient | None,
    ) -> None:
        timeout = httpx2.Timeout(read_timeout, connect=connect_timeout)

        def make() -> _Connection:
            return _Connection(access, timeout=timeout, failures=failures, client=client)

        self._connections = PerLoop(make, _Connection.aclose)
        self._failures = failures

    @asynccontextmanager
    async def open(
        self, model: str, body: dict[str, Any]
    ) -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
        """The payloads of the answer to `body`. The connection is free, or closed, when the block is left,
        however it is left. Raises `ModelError`, here and while the payloads are read.
        """
        response = await self._send(model, body)
        try:
            if not response.is_success:
                raise await self._refusal(response)
            async with aclosing(self._payloads(response)) as payloads:
                yield payloads
        finally:
            await response.aclose()

    async def aclose(self) -> None:
        """Closes the clients of the running loop."""
        await self._connections.aclose()

    async def _send(self, model: str, body: dict[str, Any]) -> httpx2.Response:
        try:
            return await self._connections.get().send(model, msgspec.json.encode(body))
        except httpx2.TimeoutException:
            raise self._failures.cut("no answer in time") from None
        except httpx2.HTTPError as error:
            raise self._failures.cut(f"no connection: {_name(error)}") from None
        except google.auth.exceptions.GoogleAuthError as error:
            raise self._no_credentials(error) from None
        except (ValueError, TypeError, RuntimeError, genai.errors.APIError) as error:
            raise self._failures.refused(_name(error)) from None

    def _no_credentials(self, error: google.auth.exceptions.GoogleAuthError) -> ModelError:
        text = f"no access token: {_name(error)}"
        # TransportError is what it raises where no token could be asked for
        retryable = cast("Any", error).retryable
        transient = retryable or isinstance(error, google.auth.exceptions.TransportError)
        return self._failures.cut(text) if transient else self._failures.refused(text)

    async def _refusal(self, response: httpx2.Response) -> ModelError:
        await bound_errors(response)
        try:
            body = await response.aread()
        except httpx2.HTTPError:
            body = b""
        return http_error(self._failures, response.status_code, response.headers, body)

    async def _payloads(self, response: httpx2.Response) -> AsyncGenerator[bytes, None]:
        whole = response.headers.get("content-type", "").startswith("application/json")
        try:
            if whole:
                yield await self._whole(response)
                return
            parser, size = EventParser(), 0
            async for data in response.aiter_bytes():
                size += len(data)
                if size > MAX_ANSWER:
                    raise self._failures.refused(f"the answer is larger than {MAX_ANSWER} bytes")
                for payload in parser.feed(data):
                    yield payload
        except httpx2.HTTPError as error:
            raise self._failures.cut(f"the connection broke: {_name(error)}") from None

    async def _whole(self, response: httpx2.Response) -> bytes:
        """A server that does not stream, or has an error to tell, answers with one document."""
        data = bytearray()
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > MAX_EVENT:
                raise self._failures.cut(f"the answer is larger than {MAX_EVENT} bytes")
        return bytes(data)


def _name(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
