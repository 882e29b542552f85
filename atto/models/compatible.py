"""Servers that speak OpenAI's APIs: Azure, Ollama, vLLM. No key of OpenAI's is ever sent to them."""

import os
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from atto.models.media_urls import MEDIA_URLS
from atto.models.openai import OpenAIChat
from atto.models.openai_responses import OpenAIResponses
from atto.protocol.errors import InvalidAgent

_OLLAMA = "http://localhost:11434"
_VLLM = "http://localhost:8000/v1"
_AZURE_PATH = "/openai/v1"


def azure(
    deployment: str,
    *,
    resource: str = "",
    endpoint: str = "",
    api_key: str = "",
    token: Callable[[], Awaitable[str]] | None = None,
    chat: bool = False,
    account: str = "",
    options: Mapping[str, Any] | None = None,
    media_urls: Collection[str] = MEDIA_URLS,
) -> OpenAIResponses | OpenAIChat:
    """A model that is deployed at Azure, through its v1 endpoint (which needs no API version).

    `resource`: the name before `.openai.azure.com`; or `endpoint`: the whole address, such as
    `https://acme.openai.azure.com`; else `AZURE_OPENAI_ENDPOINT`.
    `api_key`: else `AZURE_OPENAI_API_KEY`; or `token`: an async function that gives a token of Entra ID for
    each request, for the scope `https://cognitiveservices.azure.com/.default`.
    `chat`: Chat Completions instead of Responses, for models that are not OpenAI's.
    `account`: see `Origin`; `options`: fields for the body of every request; `media_urls`: see
    `OpenAIChat`.

    Raises `InvalidAgent` if the address or the key is missing, `MissingExtra` without the `openai` package.
    """
    key = token or api_key or os.environ.get("AZURE_OPENAI_API_KEY", "").strip()
    if not key:
        raise InvalidAgent("azure has no key: set AZURE_OPENAI_API_KEY, or pass `api_key` or `token`")
    base_url = _azure_url(resource, endpoint or os.environ.get("AZURE_OPENAI_ENDPOINT", ""))
    make = OpenAIChat if chat else OpenAIResponses
    return make(
        deployment, api_key=key, base_url=base_url, account=account, options=options, media_urls=media_urls
    )


def ollama(
    model: str,
    host: str = "",
    *,
    api_key: str = "",
    account: str = "",
    options: Mapping[str, Any] | None = None,
    media_urls: Collection[str] = MEDIA_URLS,
) -> OpenAIChat:
    """A model that Ollama serves. `host`: such as `http://gpu-1:11434`; else `OLLAMA_HOST`, else
    `http://localhost:11434`. `api_key`: for a server behind a proxy that wants one.

    Raises `InvalidAgent` if the host is none, `MissingExtra` without the `openai` package.
    """
    base_url = _ollama_url(host or os.environ.get("OLLAMA_HOST", "").strip() or _OLLAMA)
    return OpenAIChat(
        model, api_key=api_key, base_url=base_url, account=account, options=options, media_urls=media_urls
    )


def vllm(
    model: str,
    base_url: str = "",
    *,
    api_key: str = "",
    account: str = "",
    options: Mapping[str, Any] | None = None,
    media_urls: Collection[str] = MEDIA_URLS,
) -> OpenAIChat:
    """A model that vLLM serves. `base_url`: with the version; else `VLLM_BASE_URL`, else
    `http://localhost:8000/v1`. `api_key`: what the server was started with, if anything.

    Raises `InvalidAgent` if the URL is none, `MissingExtra` without the `openai` package.
    """
    url = base_url or os.environ.get("VLLM_BASE_URL", "").strip() or _VLLM
    return OpenAIChat(
        model, api_key=api_key, base_url=url, account=account, options=options, media_urls=media_urls
    )


def _azure_url(resource: str, endpoint: str) -> str:
    if resource:
        return f"https://{resource}.openai.azure.com{_AZURE_PATH}"
    url = endpoint.strip().rstrip("/")
    if not url:
        raise InvalidAgent(
            "azure has no address: set AZURE_OPENAI_ENDPOINT, or pass `resource` or `endpoint`"
        )
    return url if url.endswith(_AZURE_PATH) else f"{url.removesuffix('/openai')}{_AZURE_PATH}"


def _ollama_url(host: str) -> str:
    """`OLLAMA_HOST` is also what the server listens on: often without scheme or port, or `0.0.0.0`."""
    url = urlsplit(host if "://" in host else f"http://{host}")
    name = "127.0.0.1" if url.hostname in {None, "0.0.0.0"} else url.hostname  # noqa: S104 - nobody binds here
    name = f"[{name}]" if ":" in str(name) else name
    port = url.port or (443 if url.scheme == "https" else 11434)
    return f"{url.scheme}://{name}:{port}{url.path.rstrip('/').removesuffix('/v1')}/v1"
