"""What Google's APIs say when they refuse, as `ModelError`.

The body is a `google.rpc.Status` in JSON (https://google.aip.dev/193): a numeric `code`, a `status` word, a
`message`, and `details` tagged by `@type`, of which two matter: `RetryInfo` says how long to wait, and
`QuotaFailure` which quota is used up.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any, cast

import msgspec

from atto.models.failures import Failures
from atto.protocol.errors import ModelError


class _Status(msgspec.Struct):
    code: int | None = None
    status: str | None = None
    message: str | None = None
    details: list[dict[str, Any]] | None = None

    def body(self) -> dict[str, Any]:
        """As `Failures` reads errors: the word where others have their codes."""
        return {"message": self.message, "code": self.status, "status_code": self.code}


def http_error(failures: Failures, status: int, headers: Mapping[str, str], body: bytes) -> ModelError:
    """An HTTP status other than success, with the document that came with it."""
    document = _decoded(body)
    found = _find(document)
    error = failures.status(status, headers, found.body() if found else document)
    return _explained(error, found)


def stream_error(failures: Failures, error: Any) -> ModelError:
    """The `error` object of a stream that began as a success."""
    found = _find(error)
    return _explained(failures.in_stream(found.body() if found else error), found)


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")


def _find(document: Any) -> _Status | None:
    """The status, bare or in an `error` field or in a list of one (the endpoint sends lists without SSE)."""
    if isinstance(document, list) and document:
        return _find(cast("list[Any]", document)[0])
    if not isinstance(document, dict):
        return None
    fields = cast("dict[str, Any]", document)
    if "error" in fields:
        return _find(fields["error"])
    try:
        return msgspec.convert(fields, _Status, strict=False)
    except msgspec.ValidationError:
        return None


def _explained(error: ModelError, found: _Status | None) -> ModelError:
    """The error, with what the details add to it."""
    details = (found.details if found else None) or []
    if error.retry_after is None:
        error.retry_after = next(_delays(details), None)
    # A quota of the day does not come back while anybody waits, whatever `RetryInfo` proposes (it names
    # seconds all the same). Quotas of a minute do.
    if any("perday" in quota.lower().replace("_", "") for quota in _quotas(details)):
        error.transient = False
    return error


def _delays(details: list[dict[str, Any]]) -> Iterator[float]:
    """Seconds, written as in `34.07s` (the JSON form of `google.protobuf.Duration`)."""
    for detail in _of_type(details, "RetryInfo"):
        try:
            seconds = float(str(detail.get("retryDelay")).removesuffix("s"))
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            yield seconds


def _quotas(details: list[dict[str, Any]]) -> Iterator[str]:
    """Names such as `GenerateRequestsPerDayPerProjectPerModel-FreeTier`."""
    for detail in _of_type(details, "QuotaFailure"):
        violations = detail.get("violations")
        for violation in cast("list[Any]", violations) if isinstance(violations, list) else ():
            if isinstance(violation, dict):
                yield str(cast("dict[str, Any]", violation).get("quotaId"))


def _of_type(details: list[dict[str, Any]], name: str) -> Iterator[dict[str, Any]]:
    return (detail for detail in details if str(detail.get("@type")).endswith(f"google.rpc.{name}"))
