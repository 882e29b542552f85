"""What Anthropic says when it refuses, as `Failures` reads errors."""

from typing import Any, cast

_STATUS = {
    # https://platform.claude.com/docs/en/api/errors: the HTTP status of each type, which a stream cannot have
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def told(body: object) -> Any:
    """The `error` object of a body, or the error itself, with the code that its details may hold."""
    if not isinstance(body, dict):
        return body
    error: Any = cast("dict[str, Any]", body).get("error", body)
    if not isinstance(error, dict):
        return error
    fields = cast("dict[str, Any]", error)
    details: Any = fields.get("details")
    if isinstance(details, dict):
        return {"code": cast("dict[str, Any]", details).get("error_code"), **fields}
    return fields


def told_in_stream(error: Any) -> Any:
    """The error of a stream, with the HTTP status that it would have had."""
    found = told(error)
    if not isinstance(found, dict):
        return found
    fields = cast("dict[str, Any]", found)
    return {"status": _STATUS.get(str(fields.get("type")), 500), **fields}
