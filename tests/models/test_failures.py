import pytest

from atto.models.failures import Failures, retry_after


@pytest.mark.parametrize(
    ("status", "body", "headers", "transient"),
    [
        (400, {"message": "bad"}, {}, False),
        (401, {"message": "who?", "code": "invalid_api_key"}, {}, False),
        (408, None, {}, True),
        (409, None, {}, True),
        (429, {"message": "slow down", "code": "rate_limit_exceeded"}, {}, True),
        (429, {"message": "pay", "code": "insufficient_quota"}, {}, False),
        (429, {"message": "pay", "type": "insufficient_quota"}, {}, False),
        (429, {}, {"x-should-retry": "false"}, False),
        (400, {}, {"x-should-retry": "true"}, True),
        (500, "oops", {}, True),
        (503, "<html>", {}, True),
        (529, {}, {}, True),
    ],
)
def test_what_may_be_tried_again(status, body, headers, transient):
    error = Failures("m").status(status, headers, body)
    assert (error.transient, error.status) == (transient, status)
    assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize(
    ("error", "transient", "status"),
    [
        ({"message": "The server had an error", "type": "server_error", "code": None}, True, None),
        ({"message": "Provider returned error", "code": 502}, True, 502),
        ({"message": "slow down", "code": "429"}, True, 429),
        ({"message": "too long", "code": 400, "type": "BadRequestError"}, False, 400),
        ({"message": "too long", "code": "context_length_exceeded"}, False, None),
        ({"message": "no", "type": "invalid_request_error"}, False, None),
        ("plain words", True, None),
    ],
)
def test_errors_inside_a_stream(error, transient, status):
    made = Failures("m").in_stream(error)
    assert (made.transient, made.status) == (transient, status)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 90.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:01 GMT"}, 0.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 99 Jan 1970"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers, seconds):
    assert retry_after(headers, now=10.0) == seconds


def test_secrets_do_not_show_and_texts_have_a_bound():
    failures = Failures("m")
    failures.hide("sk-very-secret")
    text = str(
        failures.status(401, {}, {"message": "bad key sk-very-secret, Bearer abc.def " + "x" * 10_000})
    )
    assert "secret" not in text
    assert "abc.def" not in text
    assert len(text) < 1200
