"""What goes wrong on Gemini's wire, and what is left behind: nothing."""

import asyncio
import traceback
from contextlib import aclosing

import pytest

from atto.models import TextChunk
from atto.models.failures import Failures
from atto.models.gemini import Gemini
from atto.models.gemini_errors import http_error
from atto.protocol.errors import ModelError

from .chat_server import CUT, sse
from .conftest import KEY
from .gemini_payloads import answer, called, ended, quota, refusal, retry_info, said, text

PER_DAY = quota(
    "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
    "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
)
PER_MINUTE = quota("GenerateContentInputTokensPerModelPerMinute-FreeTier")


@pytest.fixture
async def model(server):
    gemini = Gemini("gemini-3-pro", api_key=KEY, base_url=server.url.removesuffix("/v1"))
    yield gemini
    await gemini.aclose()


def nested(depth) -> bytes:
    part = b'{"novel":' + b"[" * depth + b"]" * depth + b"}"
    return b'data: {"candidates":[{"content":{"parts":[' + part + b']},"finishReason":"STOP"}]}\n\n'


async def within(happening) -> None:
    async with asyncio.timeout(5):
        await happening


async def failure(ask, model):
    with pytest.raises(ModelError) as caught:
        await ask(model)
    assert KEY not in "".join(traceback.format_exception(caught.value))
    return caught.value


@pytest.mark.parametrize("ended", [True, False])
async def test_a_stream_that_ends_early_was_cut(server, model, ask, ended):
    server.reply(sse(said(text("half an"))), ended=ended)
    error = await failure(ask, model)
    assert (error.transient, error.status) == (True, None)


@pytest.mark.parametrize(
    "cut_after",
    [sse(said(text("half an"))), sse(said(text("half an")))[:-9], sse(said(called("f", {"a": 1})))],
)
async def test_a_connection_that_breaks(server, model, ask, cut_after):
    server.reply(cut_after, CUT)
    assert (await failure(ask, model)).transient


async def test_an_empty_stream_was_cut(server, model, ask):
    server.reply()
    assert (await failure(ask, model)).transient


async def test_what_came_before_the_cut_was_streamed(server, model, request_hi):
    server.reply(sse(said(text("half an"))), CUT)
    chunks = model.stream(request_hi)
    assert await anext(chunks) == TextChunk("half an")
    with pytest.raises(ModelError):
        await anext(chunks)


@pytest.mark.parametrize("rest", [(CUT,), (b"data: {oops}\n\n",), (sse(refusal(500, "INTERNAL")),)])
async def test_a_break_after_the_finish_costs_nothing(server, model, ask, rest):
    server.reply(sse(said(text("a"), reason="STOP")), *rest)
    assert (await ask(model)).message.text == "a"


async def test_nobody_listens(ask):
    model = Gemini("m", api_key=KEY, base_url="http://127.0.0.1:9")
    error = await failure(ask, model)
    assert error.transient
    assert "no connection" in str(error)
    await model.aclose()


@pytest.mark.parametrize("steps", [(sse(said(text("a"))),), ()])
async def test_a_server_that_says_nothing_for_too_long(server, ask, steps):
    model = Gemini("m", api_key=KEY, base_url=server.url, read_timeout=0.05)
    server.reply(*steps, asyncio.Event())
    assert (await failure(ask, model)).transient
    await within(server.gone.wait())
    await model.aclose()


@pytest.mark.parametrize("first", [sse(said(text("a"))), None])
async def test_cancelling_closes_the_connection(server, model, request_hi, first):
    server.reply(*filter(None, [first]), asyncio.Event())
    seen = asyncio.Event()

    async def listen():
        async for _ in model.stream(request_hi):
            seen.set()

    task = asyncio.create_task(listen())
    await within(seen.wait() if first else server.arrived.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await within(server.gone.wait())
    assert server.open == 0


async def test_closing_early_closes_the_connection_and_touches_no_other(server, model, request_hi):
    go = asyncio.Event()
    server.reply(sse(said(text("a"))), go, sse(said(text("b")), ended()))
    async with aclosing(model.stream(request_hi)) as other:
        assert await anext(other) == TextChunk("a")
        server.reply(sse(said(text("x"))), asyncio.Event())
        async with aclosing(model.stream(request_hi)) as chunks:
            assert await anext(chunks) == TextChunk("x")
        await within(server.gone.wait())
        assert server.open == 1
        go.set()
        assert [chunk.text async for chunk in other if isinstance(chunk, TextChunk)] == ["b"]


async def test_too_many_requests(server, model, ask):
    server.refuse(
        429, refusal(429, "RESOURCE_EXHAUSTED", f"slow down {KEY}", PER_MINUTE, retry_info("7.25s"))
    )
    error = await failure(ask, model)
    assert (error.transient, error.status, error.retry_after) == (True, 429, 7.25)
    assert "HTTP 429: slow down *** (RESOURCE_EXHAUSTED)" in str(error)
    assert len(server.requests) == 1


async def test_the_quota_of_a_day_is_not_transient(server, model, ask):
    server.refuse(429, refusal(429, "RESOURCE_EXHAUSTED", "no", PER_DAY, retry_info("20s")))
    assert not (await failure(ask, model)).transient


@pytest.mark.parametrize(
    ("status", "transient"),
    [(302, False), (400, False), (403, False), (404, False), (429, True), (500, True), (503, True)],
)
async def test_statuses(server, model, ask, status, transient):
    server.refuse(status, refusal(status, "WORD"))
    error = await failure(ask, model)
    assert (error.transient, error.status) == (transient, status)
    assert len(server.requests) == 1


async def test_the_header_says_when_to_come_again(server, model, ask):
    server.refuse(503, refusal(503, "UNAVAILABLE", "no", retry_info("9s")), retry_after="3")
    assert (await failure(ask, model)).retry_after == 3.0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b"[]",
        b"7",
        b"\xff",
        b"[" * 100_000,
        b'{"error": "busy"}',
        b'{"error": {"code": "x", "details": 7}}',
        b'[{"error": {"code": 503, "message": "busy", "details": [{"@type": 1}, {}]}}]',
        b'{"error": {"details": [{"@type": "t/google.rpc.RetryInfo", "retryDelay": "nans"}]}}',
        b'{"error": {"details": [{"@type": "t/google.rpc.QuotaFailure", "violations": [7, {}]}]}}',
    ],
)
def test_documents_of_any_kind(body):
    error = http_error(Failures("m"), 503, {}, body)
    assert (error.transient, error.status, error.retry_after) == (True, 503, None)
    assert ("busy" in str(error)) is (b"busy" in body)


async def test_an_error_inside_a_success(server, model, ask):
    server.reply(sse(said(text("a"))), sse(refusal(503, "UNAVAILABLE", "overloaded", retry_info("4s"))))
    error = await failure(ask, model)
    assert (error.transient, error.status, error.retry_after) == (True, 503, 4.0)
    assert "overloaded (UNAVAILABLE)" in str(error)


async def test_an_error_document_instead_of_a_stream(server, model, ask):
    server.refuse(200, [refusal(400, "INVALID_ARGUMENT", f"bad {KEY}")])
    error = await failure(ask, model)
    assert (error.transient, error.status) == (False, 400)
    assert "bad ***" in str(error)


async def test_a_refusal_that_breaks_off_still_has_its_status(server, model, ask):
    server.reply(b'{"error', CUT, status=503, content_type="application/json")
    error = await failure(ask, model)
    assert (error.transient, error.status) == (True, 503)


@pytest.mark.parametrize(
    "junk",
    [
        b"data: {oops}\n\n",
        b'data: {"candidates": 7}\n\n',
        b'data: {"candidates": [{"content": {"parts": ["x"]}}]}\n\n',
        b"data: 7\n\n",
        b"<html></html>\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
        nested(100_000),
        nested(85),  # of the hundred levels that can be read wherever the part goes
        sse(said({"functionCall": {"name": 7, "args": {"a": {}}, "id": []}})),
        sse(said({"functionCall": 7, "text": 8, "thought": []})),
    ],
)
async def test_junk(server, model, ask, junk):
    server.reply(junk)
    assert (await failure(ask, model)).transient


async def test_after_a_failure_the_model_works_on(server, model, ask):
    server.reply(sse(said(text("a"))), CUT)
    await failure(ask, model)
    server.reply(answer("ok"))
    assert (await ask(model)).message.text == "ok"


@pytest.mark.parametrize("name", ["../x", "a?b", ""])
async def test_a_name_that_is_none_is_never_sent(server, ask, name):
    model = Gemini(name, api_key=KEY, base_url=server.url)
    assert not (await failure(ask, model)).transient
    assert server.requests == []
    await model.aclose()
