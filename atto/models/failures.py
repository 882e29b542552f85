"""What goes wrong at a provider, as `ModelError`: one classification for every adapter."""

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import urlsplit

from atto.protocol.errors import ModelError

_TRANSIENT = frozenset({408, 409, 425, 429})  # and all of 500 and more, such as Anthropic's 529
_TRANSIENT_AT = {498: "groq.com"}
"""Statuses that one provider alone means so: Groq has no flex capacity left; at Cohere a token is invalid."""
_TRANSIENT_WORDS = frozenset(
    {
        # the model made what the API could not read, which is a matter of sampling (Groq, with 400)
        "tool_use_failed",
        "json_validate_failed",
        "engine_overloaded_error",  # Moonshot
        "server_overloaded",
    }
)
_PERMANENT_WORDS = frozenset(
    {
        # what no waiting mends, whatever the status (openai: error codes; others: their error types)
        "insufficient_quota",
        "exceeded_current_quota_error",  # Moonshot, with 429
        "insufficient_balance",
        "1113",  # z.ai, with 429: no balance
        "1309",  # z.ai, with 429: the plan has expired
        "contract_spend_limit_reached",
        "enforced_spend_limit_reached",
        "linked_organization_spend_limit_reached",
        "billing_error",
        "request_too_large",
        "billing_hard_limit_reached",
        "billing_not_active",
        "context_length_exceeded",
        "content_filter",
        "invalid_api_key",
        "model_not_found",
    }
)
_BLAMING_WORDS = frozenset(
    {
        # general types, which say less than a status does, where there is one
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
    }
)
_TEXT_LIMIT = 1000
_SHORTEST_SECRET = 8
_BEARER = re.compile(r"(?i)\b(bearer)\s+[^\s'\"]+")


class Failures:
    """Makes the errors of one model: named after it, classified, without its secrets, of bounded length."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._secrets: dict[str, None] = {}

    def hide(self, secret: str) -> None:
        """Keeps `secret` out of every error from now on, should a provider or a library repeat it."""
        if len(secret) >= _SHORTEST_SECRET:
            self._secrets[secret] = None
            if len(self._secrets) > 100:  # tokens that rotate: the oldest have expired long since
                del self._secrets[next(iter(self._secrets))]

    def cut(self, what: str = "the stream ended without its terminal marker") -> ModelError:
        """The answer broke off, or did not come: always worth another try."""
        return self._error(what, transient=True)

    def refused(self, what: str) -> ModelError:
        """The request was not even sent, and would not be the next time."""
        return self._error(what, transient=False)

    def status(self, status: int, headers: Mapping[str, str], body: Any) -> ModelError:
        """An HTTP status other than success, with the `error` object of its body or the body itself."""
        if 300 <= status < 400:
            return self._error(_redirected(status, headers), transient=False, status=status)
        text, words = _read(body)
        return self._error(
            f"HTTP {status}: {text}",
            transient=self._is_transient(status, words, headers.get("x-should-retry")),
            status=status,
            retry_after=retry_after(headers),
        )

    def in_stream(self, error: Any) -> ModelError:
        """An error that arrived inside a stream that began as a success."""
        text, words = _read(error)
        status = _status(error)
        return self._error(
            f"the stream reported an error: {text}",
            transient=self._is_transient(status, words, None),
            status=status,
        )

    def _is_transient(self, status: int | None, words: frozenset[str], should_retry: str | None) -> bool:
        if words & _PERMANENT_WORDS or should_retry == "false":
            return False
        if words & _TRANSIENT_WORDS or should_retry == "true":
            return True
        if status is None:
            return not words & _BLAMING_WORDS
        host = _TRANSIENT_AT.get(status)
        return status in _TRANSIENT or status >= 500 or (host is not None and host in self._model)

    def _error(
        self, text: str, *, transient: bool, status: int | None = None, retry_after: float | None = None
    ) -> ModelError:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        text = _BEARER.sub(r"\1 ***", text)
        if len(text) > _TEXT_LIMIT:
            text = f"{text[:_TEXT_LIMIT]}… ({len(text)} characters)"
        return ModelError(
            f"{self._model}: {text}", transient=transient, status=status, retry_after=retry_after
        )


def retry_after(headers: Mapping[str, str], *, now: float | None = None) -> float | None:
    """Seconds to wait, from `retry-after-ms` (OpenAI) or `Retry-After`, in seconds or as an HTTP date (RFC
    9110, 10.2.3). None where there is neither, or nonsense. `now`: the time, in seconds since the epoch.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds = _seconds(headers.get(name, "").strip(), unit, time.time() if now is None else now)
        if seconds is not None:
            return seconds
    return None


def _seconds(value: str, unit: float, now: float) -> float | None:
    try:
        seconds = float(value) / unit
    except ValueError:
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - now)
        except (ValueError, OverflowError):
            return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _redirected(status: int, headers: Mapping[str, str]) -> str:
    place = urlsplit(headers.get("location", "")).netloc.rpartition("@")[2] or "another path"
    return (
        f"HTTP {status}: the server redirects to {place}, which is not followed, since the prompt would go "
        "there: make the model with that `base_url`, if it is right"
    )


def _read(error: Any) -> tuple[str, frozenset[str]]:
    """The message, and the words (`code`, `type`) by which providers classify."""
    if not isinstance(error, dict):
        return str(error or "no details"), frozenset()
    fields = cast("dict[str, Any]", error)
    words = [str(fields[name]) for name in ("code", "type") if fields.get(name)]
    text = str(fields.get("message") or fields.get("detail") or fields)
    return f"{text} ({', '.join(words)})" if words else text, frozenset(words)


def _status(error: Any) -> int | None:
    """OpenRouter, vLLM and others put the HTTP status that they would have sent in `code` or `status`."""
    if isinstance(error, dict):
        fields = cast("dict[str, Any]", error)
        for value in (fields.get("code"), fields.get("status"), fields.get("status_code")):
            if str(value).isdecimal() and 400 <= int(str(value)) < 600:
                return int(str(value))
    return None
