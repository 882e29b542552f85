"""What goes wrong on the wire, and what is left behind: nothing."""

import asyncio
import traceback
from contextlib import aclosing

import pytest

from atto.models import TextChunk
from atto.models.openai import OpenAIChat
from atto.protocol.errors import ModelError

from .chat_server import CUT, DONE, answer, calls, delta, finish, piece, sse
from .conftest import KEY


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
    server.reply(sse(delta(content="half an")), ended=ended)
    error = await failure(ask, model)
    assert error.transient
    assert error.status is None


@pytest.mark.parametrize(
    "cut_after",
    [
        sse(delta(content="half an")),
        sse(delta(content="half an"))[:-9],
        sse(calls(piece(0, "x", "f", '{"a":'))),
    ],
)
async def test_a_connection_that_breaks(server, model, ask, cut_after):
    server.reply(cut_after, CUT)
    assert (await failure(ask, model)).transient


async def test_what_came_before_the_cut_was_streamed(server, model, request_hi):
    server.reply(sse(delta(content="half an")), CUT)
    chunks = model.stream(request_hi)
    assert await anext(chunks) == TextChunk("half an")
    with pytest.raises(ModelError):
        await anext(chunks)


async def test_a_break_after_the_finish_costs_nothing(server, model, ask):
    server.reply(sse(delta(content="a"), finish()), CUT)
    assert (await ask(model)).message.text == "a"


async def test_nobody_listens(ask):
    model = OpenAIChat("m", base_url="http://127.0.0.1:9/v1")
    error = await failure(ask, model)
    assert error.transient
    assert "no connection" in str(error)
    await model.aclose()


async def test_a_server_that_says_nothing_for_too_long(server, ask):
    model = OpenAIChat("m", api_key=KEY, base_url=server.url, read_timeout=0.05)
    server.reply(sse(delta(content="a")), asyncio.Event())
    assert (await failure(ask, model)).transient
    await within(server.gone.wait())
    await model.aclose()


async def test_cancelling_closes_the_connection(server, model, request_hi):
    server.reply(sse(delta(content="a")), asyncio.Event())
    seen = asyncio.Event()

    async def listen():
        async for _ in model.stream(request_hi):
            seen.set()

    task = asyncio.create_task(listen())
    await within(seen.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await within(server.gone.wait())
    assert server.open == 0


async def test_cancelling_before_the_first_byte_closes_the_connection(server, model, ask):
    server.reply(asyncio.Event())
    task = asyncio.create_task(ask(model))
    await within(server.arrived.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await within(server.gone.wait())


async def test_closing_early_closes_the_connection_and_touches_no_other(server, model, ask, request_hi):
    go = asyncio.Event()
    server.reply(sse(delta(content="a")), go, sse(delta(content="b"), finish()), DONE)
    async with aclosing(model.stream(request_hi)) as other:
        assert await anext(other) == TextChunk("a")
        server.reply(sse(delta(content="x")), asyncio.Event())
        async with aclosing(model.stream(request_hi)) as chunks:
            assert await anext(chunks) == TextChunk("x")
        await within(server.gone.wait())
        go.set()
        assert [chunk.text async for chunk in other if isinstance(chunk, TextChunk)] == ["b"]


async def test_too_many_requests(server, model, ask):
    body = {"error": {"message": f"slow down {KEY}", "type": "requests", "code": "rate_limit_exceeded"}}
    server.refuse(429, body, retry_after="7")
    error = await failure(ask, model)
    assert (error.transient, error.status, error.retry_after) == (True, 429, 7.0)
    assert "slow down ***" in str(error)
    assert len(server.requests) == 1


async def test_no_money_is_not_transient(server, model, ask):
    server.refuse(
        429, {"error": {"message": "pay", "type": "insufficient_quota", "code": "insufficient_quota"}}
    )
    assert not (await failure(ask, model)).transient


@pytest.mark.parametrize(
    ("status", "transient"), [(400, False), (401, False), (404, False), (408, True), (503, True)]
)
async def test_statuses(server, model, ask, status, transient):
    server.refuse(status, {"error": {"message": "no"}})
    error = await failure(ask, model)
    assert (error.transient, error.status) == (transient, status)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "payload",
    [
        {"error": {"message": "overloaded", "code": 503}},
        {"object": "error", "message": "overloaded", "code": 503},
        {
            "error": {"message": "overloaded", "code": "503"},
            "choices": [{"index": 0, "finish_reason": "error"}],
        },
    ],
)
async def test_an_error_inside_a_success(server, model, ask, payload):
    server.reply(sse(delta(content="a"), payload), DONE)
    error = await failure(ask, model)
    assert (error.transient, error.status) == (True, 503)
    assert "overloaded" in str(error)


async def test_an_error_document_instead_of_a_stream(server, model, ask):
    server.refuse(200, {"error": {"message": f"bad {KEY}", "type": "invalid_request_error"}})
    error = await failure(ask, model)
    assert not error.transient
    assert "bad ***" in str(error)


async def test_the_finish_reason_error(server, model, ask):
    server.reply(sse(delta(content="a"), finish("error")), DONE)
    assert (await failure(ask, model)).transient


@pytest.mark.parametrize(
    "junk",
    [
        b"data: {oops}\n\n",
        b'data: {"choices": 7}\n\n',
        b"data: []\n\n",
        b"<html></html>\n\n",
        b"data: " + b"[" * 100_000 + b"\n\n",
    ],
)
async def test_junk(server, model, ask, junk):
    server.reply(junk)
    assert (await failure(ask, model)).transient


async def test_after_a_failure_the_model_works_on(server, model, ask):
    server.reply(sse(delta(content="a")), CUT)
    await failure(ask, model)
    server.reply(answer("ok"))
    assert (await ask(model)).message.text == "ok"
