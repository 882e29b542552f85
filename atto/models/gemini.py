"""Gemini, at AI Studio and at Vertex AI."""

import os
import re
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from atto.models.base import Chunk, ModelRequest
from atto.models.failures import Failures
from atto.models.gemini_request import gemini_body
from atto.models.gemini_stream import GeminiReader
from atto.models.late import late_chunks
from atto.models.media_urls import MEDIA_URLS, allowed_urls, check_media
from atto.models.options import checked, checked_tools, own_options
from atto.protocol.errors import InvalidAgent, MissingExtra
from atto.protocol.messages import Origin

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from httpx2 import AsyncClient

    from atto.models.gemini_http import Access, GeminiWire

_GOOGLE = ".googleapis.com"
_VERSION = re.compile(r"(?P<rest>.*)/(?P<version>v\d+(?:(?:alpha|beta)\d*)?)/?")
_NO_KEY = "no-key-needed"


class Gemini:
    """A Gemini model. At AI Studio with an API key; at Vertex AI if `project`, `location` or `credentials` is
    given.

    `api_key`: else `GEMINI_API_KEY`, else `GOOGLE_API_KEY`. A server that is not Google's gets a placeholder
    if there is none.
    `project`: else `GOOGLE_CLOUD_PROJECT`; `location`: else `GOOGLE_CLOUD_LOCATION`, else `global`.
    `credentials`: of `google.auth`; else those that it finds in the environment.
    `base_url`: of a proxy or gateway, and its API version if not the SDK's default, such as
    `http://localhost:4010/v1beta`; else `GOOGLE_GEMINI_BASE_URL` or `GOOGLE_VERTEX_BASE_URL`, else Google.
    Raises `InvalidAgent` where these do not go together, or the key or the project is missing, and
    `MissingExtra` without the `google-genai` package, which is loaded by the first stream, not before.

    `account`: tells apart accounts with one provider (see `Origin`); at Vertex AI the project, if not given.
    `connect_timeout`, `read_timeout`: seconds until the connection stands, and between two bytes.
    `options`: fields for the body of every request, such as `{"generationConfig": {"topP": 0.9}}`. Objects
    are merged, `tools` are added to the agent's, None takes a field away.
    `media_urls`: addresses of images and files that may go to the provider: schemes, of public hosts only,
    and `scheme://host/path` for all below it.
    `client`: an `httpx2.AsyncClient` of your own, for proxies, certificates and headers. It serves one event
    loop, and you close it; otherwise each loop gets its own, until `aclose`.
    """

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        account: str = "",
        project: str | None = None,
        location: str | None = None,
        credentials: "Credentials | None" = None,
        connect_timeout: float = 10.0,
        read_timeout: float = 600.0,
        options: Mapping[str, Any] | None = None,
        media_urls: Collection[str] = MEDIA_URLS,
        client: "AsyncClient | None" = None,
    ) -> None:
        if not _installed():
            raise MissingExtra("Gemini needs the google-genai package: pip install 'atto-agents[gemini]'")
        self._vertex = bool(project or location or credentials)
        if self._vertex and api_key:
            raise InvalidAgent("Gemini takes either `api_key`, or what Vertex AI needs, not both")
        self._base_url, self._api_version = _address(base_url, vertex=self._vertex)
        provider = _provider(self._base_url, vertex=self._vertex)
        self._api_key = "" if self._vertex else _key(api_key, at_google=provider == "gemini")
        self._project = _project(project) if self._vertex else ""
        self._location = location or os.environ.get("GOOGLE_CLOUD_LOCATION") or "global"
        self._credentials = credentials
        self._origin = Origin(provider, model, account or self._project)
        self._timeouts = connect_timeout, read_timeout
        self._options = own_options("Gemini", options)
        self._media_urls = allowed_urls("Gemini", media_urls)
        self._client = client
        self._failures = Failures(f"{provider}/{model}")
        self._failures.hide(self._api_key)
        self._wire_made: GeminiWire | None = None

    def __repr__(self) -> str:
        return f"Gemini({self._origin.model!r}, provider={self._origin.provider!r})"

    @property
    def origin(self) -> Origin:
        """The provider is `gemini` or `vertex`, followed by the server's address where that is not Google."""
        return self._origin

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Chunk, None]:
        """One request, no retries. Leaving it early closes the connection.

        An answer that the model spoilt (`MALFORMED_FUNCTION_CALL` and the like) is a transient `ModelError`:
        there is nothing to go on with, and the next try is mostly fine.
        """
        checked(self._failures, request.options)
        check_media(request.messages, self._media_urls, self._failures)
        body = gemini_body(request, origin=self._origin, options=self._options)
        checked_tools(self._failures, body.get("tools"))
        reader = GeminiReader(self._failures)
        async with self._wire().open(self._origin.model, body) as payloads:
            async for payload in payloads:
                for chunk in reader.read(payload):
                    yield chunk
                if reader.finished:
                    break
            async with aclosing(late_chunks(payloads, reader)) as late:
                async for chunk in late:
                    yield chunk
        for chunk in reader.end():
            yield chunk

    async def aclose(self) -> None:
        """Closes the connections of the running event loop; a later stream opens new ones."""
        if self._wire_made is not None:
            await self._wire_made.aclose()

    def _wire(self) -> "GeminiWire":
        if self._wire_made is None:
            from atto.models import gemini_http  # noqa: PLC0415 - loads the SDK: 0.6 s and 41 MB

            connect, read = self._timeouts
            self._wire_made = gemini_http.GeminiWire(
                self._access(),
                connect_timeout=connect,
                read_timeout=read,
                failures=self._failures,
                client=self._client,
            )
        return self._wire_made

    def _access(self) -> "Access":
        from atto.models import gemini_http  # noqa: PLC0415 - as above

        if not self._vertex:
            return gemini_http.Access(self._base_url, self._api_version, api_key=self._api_key)
        return gemini_http.Access(
            self._base_url,
            self._api_version,
            vertex=True,
            project=self._project,
            location=self._location,
            credentials=self._credentials,
        )


def _installed() -> bool:
    """Without any package of Google's, `google` itself is missing, and `find_spec` raises."""
    return find_spec("google") is not None and find_spec("google.genai") is not None


def _key(api_key: str | None, *, at_google: bool) -> str:
    environment = os.environ.get("GEMINI_API_KEY") or os.environ.get("GOOGLE_API_KEY") or ""
    key = (environment if api_key is None else api_key).strip()
    if not key and not at_google:
        return _NO_KEY
    if not key:
        raise InvalidAgent(
            "Gemini has no key: set GEMINI_API_KEY or pass `api_key`; or, for Vertex AI, pass `project`"
        )
    if not (key.isascii() and key.isprintable()):
        raise InvalidAgent("Gemini: the API key holds characters that cannot be sent")
    return key


def _project(project: str | None) -> str:
    found = project or os.environ.get("GOOGLE_CLOUD_PROJECT") or ""
    if not found:
        raise InvalidAgent("Gemini at Vertex AI needs a project: pass `project` or set GOOGLE_CLOUD_PROJECT")
    return found


def _address(base_url: str | None, *, vertex: bool) -> tuple[str | None, str | None]:
    """The base URL as the SDK wants it, without the API's version, and the version; None: the SDK knows."""
    variable = "GOOGLE_VERTEX_BASE_URL" if vertex else "GOOGLE_GEMINI_BASE_URL"
    url = (base_url or os.environ.get(variable) or "").strip()
    if not url:
        return None, None
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidAgent("Gemini: the base URL is not like https://host or https://host/v1beta")
    versioned = _VERSION.fullmatch(url)
    return (versioned["rest"], versioned["version"]) if versioned else (url, None)


def _provider(base_url: str | None, *, vertex: bool) -> str:
    name = "vertex" if vertex else "gemini"
    url = urlsplit(base_url or "")
    if not url.hostname or url.hostname.endswith(_GOOGLE):
        return name
    return f"{name}@{url.netloc.rpartition('@')[2]}"
