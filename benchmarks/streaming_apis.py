"""The adapters of models, and the iterators of the SDKs that they do without."""

# ruff: noqa: PLC0415 - an SDK is loaded where it is measured

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from atto.testing.model_dialect import Dialect
from tests.models.anthropic_dialect import AnthropicDialect
from tests.models.chat_dialect import ChatDialect
from tests.models.gemini_dialect import GeminiDialect
from tests.models.responses_dialect import ResponsesDialect

KEY = "key-0123456789abcdef"


class Api(NamedTuple):
    """`sdk`: given the base URL, what asks once, by the SDK's own iterator, and counts the chunks."""

    dialect: Callable[[], Dialect]
    sdk: Callable[[str], Callable[[], Awaitable[int]]]


def _chat(url: str) -> Callable[[], Awaitable[int]]:
    import openai

    client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0)

    async def ask() -> int:
        messages: Any = [{"role": "user", "content": "hi"}]
        stream = await client.chat.completions.create(model="m", messages=messages, stream=True)
        return len([chunk async for chunk in stream])

    return ask


def _responses(url: str) -> Callable[[], Awaitable[int]]:
    import openai

    client = openai.AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0)

    async def ask() -> int:
        stream = await client.responses.create(model="m", input="hi", stream=True)
        return len([event async for event in stream])

    return ask


def _messages(url: str) -> Callable[[], Awaitable[int]]:
    import anthropic

    client = anthropic.AsyncAnthropic(api_key=KEY, base_url=url, max_retries=0, open_telemetry=False)

    async def ask() -> int:
        messages: Any = [{"role": "user", "content": "hi"}]
        stream = await client.messages.create(model="m", max_tokens=100, messages=messages, stream=True)
        return len([event async for event in stream])

    return ask


def _gemini(url: str) -> Callable[[], Awaitable[int]]:
    import httpx2
    from google import genai
    from google.genai import types

    http = httpx2.AsyncClient(limits=httpx2.Limits(max_connections=1000))
    options = types.HttpOptions(base_url=url, httpx_async_client=http)
    client = genai.Client(api_key=KEY, http_options=options)

    async def ask() -> int:
        stream = await client.aio.models.generate_content_stream(model="m", contents="hi")
        return len([chunk async for chunk in stream])

    return ask


APIS: dict[str, Api] = {
    "openai chat": Api(ChatDialect, _chat),
    "openai responses": Api(ResponsesDialect, _responses),
    "anthropic": Api(AnthropicDialect, _messages),
    "gemini": Api(GeminiDialect, _gemini),
}
