"""A server leads no prompt astray and fills no memory; an address leads no provider to what is private."""

import pytest

from atto.models import Anthropic, Gemini, ModelRequest, OpenAIChat, OpenAIResponses
from atto.models.failures import Failures
from atto.models.http_client import MAX_ERROR
from atto.models.media_urls import allowed_urls, check_media
from atto.protocol.errors import InvalidAgent, ModelError
from atto.protocol.messages import FilePart, ImagePart, Message, TextPart, ToolResultPart
from atto.testing.model_server import ModelServer, Reply

MAKE = {
    "chat": lambda url: OpenAIChat("m", api_key="sk-canary-01234567", base_url=f"{url}/v1"),
    "responses": lambda url: OpenAIResponses("m", api_key="sk-canary-01234567", base_url=f"{url}/v1"),
    "messages": lambda url: Anthropic("m", api_key="sk-canary-01234567", base_url=url),
    "gemini": lambda url: Gemini("m", api_key="sk-canary-01234567", base_url=url),
}


async def refusal(adapter, server):
    model = MAKE[adapter](server.url)
    try:
        with pytest.raises(ModelError) as caught:
            async for _ in model.stream(ModelRequest(messages=(Message.user("secret"),))):
                pass
    finally:
        await model.aclose()
    return caught.value


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("adapter", MAKE)
async def test_a_redirect_is_not_followed(adapter, status):
    async with ModelServer() as elsewhere, ModelServer() as server:
        headers = {"location": f"{elsewhere.url}/v1/steal"}
        server.default = Reply.of(b"", status=status, headers=headers, content_type="text/plain")
        error = await refusal(adapter, server)
        assert (elsewhere.connections, len(server.requests)) == (0, 1)
    assert (error.transient, error.status) == (False, status)
    assert elsewhere.url.removeprefix("http://") in str(error)
    assert "base_url" in str(error)


@pytest.mark.parametrize("status", [307, 400, 429, 500])
@pytest.mark.parametrize("adapter", MAKE)
async def test_no_more_of_an_error_is_read_than_is_worth_telling(adapter, status):
    megabyte = b"x" * (1 << 20)
    async with ModelServer() as server:
        server.default = Reply.of(*[megabyte] * 250, status=status, content_type="application/json")
        error = await refusal(adapter, server)
    assert error.status == status
    assert len(str(error)) < MAX_ERROR


@pytest.mark.parametrize("adapter", MAKE)
async def test_an_answer_without_end_is_given_up(adapter, monkeypatch):
    monkeypatch.setattr("atto.models.answer_bytes.MAX_ANSWER", 1 << 16)
    monkeypatch.setattr("atto.models.gemini_http.MAX_ANSWER", 1 << 16)
    async with ModelServer() as server:
        server.default = Reply.of(*[b": ping\n\n" * 1000] * 1000)
        error = await refusal(adapter, server)
    assert "larger than 65536 bytes" in str(error)


REFUSED = [
    "file:///etc/passwd", "gs://bucket/x", "http://example.com/a.png", "ftp://example.com/a",
    "//example.com/a",    "/etc/passwd", "", "https://localhost/a", "https://127.0.0.1/a", "https://127.1/a", "https://2130706433/a",
    "https://0x7f000001/a", "https://[::1]/a", "https://[::ffff:10.0.0.1]/a", "https://169.254.169.254/latest",
    "https://10.1.2.3/a", "https://192.168.0.1/a", "https://[fd00::1]/a", "https://[fe80::1%25eth0]/a",
    "https://metadata.google.internal/a", "https://printer.local/a", "https://intranet/a", "https://0.0.0.0/",
    "https://user@127.0.0.1/a", "https://localhost./a", "HTTPS://LOCALHOST/a", "https://[bad/a",
]  # fmt: skip
TAKEN = [
    "https://example.com/a.png",
    "HTTPS://example.com/a",
    "https://8.8.8.8/a",
    "data:image/png;base64,aGk=",
]


def check(url, *media_urls):
    allowed = allowed_urls("M", media_urls or ("https", "data"))
    messages = [Message.user((TextPart("see"), ImagePart(url=url, media_type="image/png")))]
    check_media(messages, allowed, Failures("m"))
    result = ToolResultPart("c", "f", (FilePart(url=url, media_type="image/png"),))
    check_media([Message("tool", (result,))], allowed, Failures("m"))


@pytest.mark.parametrize("url", REFUSED)
def test_addresses_that_do_not_go_out(url):
    with pytest.raises(ModelError, match=r"media_urls|not a URL") as caught:
        check(url)
    assert not caught.value.transient


@pytest.mark.parametrize("url", TAKEN)
def test_addresses_that_go_out(url):
    check(url)


def test_what_is_allowed_goes_out_and_nothing_beside_it():
    check("gs://bucket/x", "https", "gs")
    check("http://assets.internal:8080/img/a.png", "http://assets.internal:8080/img/")
    for other in (
        "http://assets.internal:8080/x",
        "http://assets.internal/img/a",
        "http://10.0.0.1/img/a",
        "http://assets.internal:8080/img/../x",
        "http://assets.internal:8080.example.com/img/a",
    ):
        with pytest.raises(ModelError):
            check(other, "http://assets.internal:8080/img/")
    with pytest.raises(ModelError):
        check("http://127.0.0.1/a", "http")


@pytest.mark.parametrize("entries", ["https", ["http:///path"]])
def test_what_allows_nothing_is_refused(entries):
    with pytest.raises(InvalidAgent, match="media_urls"):
        OpenAIChat("m", api_key="sk-canary-01234567", media_urls=entries)


@pytest.mark.parametrize("adapter", MAKE)
async def test_each_adapter_keeps_such_addresses_back(adapter):
    model = MAKE[adapter]("http://127.0.0.1:9")
    message = Message.user((ImagePart(url="http://169.254.169.254/latest/meta-data"),))
    with pytest.raises(ModelError, match="not handed to the provider"):
        async for _ in model.stream(ModelRequest(messages=(message,))):
            pass


@pytest.mark.parametrize(
    ("model", "status", "error", "transient"),
    [
        ("m", 408, {}, True), ("m", 409, {}, True), ("m", 425, {}, True), ("m", 429, {}, True),
        ("m", 529, {}, True),
        ("m", 413, {}, False), ("m", 422, {}, False), ("m", 402, {}, False),
        ("openai-chat@api.groq.com/x", 498, {}, True), ("openai-chat@api.cohere.com/x", 498, {}, False),
        ("m", 400, {"code": "tool_use_failed", "type": "invalid_request_error"}, True),
        ("m", 400, {"code": "json_validate_failed", "type": "invalid_request_error"}, True),
        ("m", 429, {"code": "insufficient_quota"}, False),
        ("m", 429, {"type": "exceeded_current_quota_error"}, False),
        ("m", 429, {"code": "1113"}, False), ("m", 429, {"code": "1302"}, True),
        ("m", 429, {"type": "engine_overloaded_error"}, True),
        ("m", 429, {"type": "invalid_request_error"}, True),
        ("m", 400, {"type": "invalid_request_error"}, False),
    ],
)  # fmt: skip
def test_which_errors_another_try_may_mend(model, status, error, transient):
    assert Failures(model).status(status, {}, {"message": "no", **error}).transient is transient
