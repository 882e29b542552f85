import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.models import (
    Assembler,
    Fail,
    FinishChunk,
    Model,
    ModelRequest,
    PartDone,
    Pause,
    ScriptedModel,
    Stall,
    TextChunk,
    ToolCallChunk,
    call,
)
from atto.models.scripted import REQUESTS_KEPT
from atto.protocol.errors import ModelError
from atto.protocol.messages import ImagePart, Message, Origin, ReasoningPart, TextPart, ToolCallPart

HI = ModelRequest(messages=(Message.user("hi"),))


async def chunks_of(model, request=HI):
    return [chunk async for chunk in model.stream(request)]


def test_it_is_a_model():
    assert isinstance(ScriptedModel("a"), Model)


async def test_a_string_is_streamed_word_by_word(ask):
    model = ScriptedModel("It is  sunny.\n")
    chunks = await chunks_of(model)
    assert [chunk.text for chunk in chunks if isinstance(chunk, TextChunk)] == ["It", " is", "  sunny.", "\n"]
    assert chunks[-1] == FinishChunk("stop")


@given(st.text(st.characters(exclude_categories=["Cs"])))
async def test_no_character_of_a_string_is_lost(text):
    assembler = Assembler()
    for chunk in await chunks_of(ScriptedModel(text)):
        assembler.add(chunk)
    assert assembler.finish().message.text == text


async def test_a_call_and_then_an_answer(ask):
    model = ScriptedModel(call("weather", city="Rome", name="x"), "Sunny.")
    first, second = await ask(model), await ask(model)
    (made,) = first.message.tool_calls
    assert (made.name, made.arguments, first.finish) == (
        "weather",
        {"city": "Rome", "name": "x"},
        "tool_calls",
    )
    assert made.id
    assert (second.message.text, second.finish) == ("Sunny.", "stop")
    assert model.requests == [HI, HI]


async def test_a_message_comes_out_as_it_went_in(ask):
    parts = (
        ReasoningPart("let me think", native={"signature": "s"}),
        TextPart("one moment"),
        TextPart("please", native={"x": 1}),
        ToolCallPart("a", "f", {"x": [1]}, native={"y": 2}),
        ToolCallPart("b", "f", malformed="{oops"),
    )
    assembled = await ask(ScriptedModel(Message("assistant", parts)))
    assert assembled.message == Message("assistant", parts, Origin("scripted", "scripted"))


async def test_a_list_is_played_exactly_and_is_cut_where_it_says_nothing_of_an_end(ask):
    script = [TextChunk("half an ans")]
    assert await chunks_of(ScriptedModel(script)) == script
    with pytest.raises(ModelError, match="terminal marker"):
        await ask(ScriptedModel(script))


async def test_a_list_may_hold_whole_calls_beside_pieces(ask):
    script = [ToolCallChunk(0, "x", "f"), call("g"), call("h"), PartDone(None, 0), FinishChunk("tool_calls")]
    assembled = await ask(ScriptedModel(script))
    assert [made.name for made in assembled.message.tool_calls] == ["f", "g", "h"]


async def test_an_exception_is_raised_before_anything_is_said():
    with pytest.raises(ModelError, match="busy"):
        await chunks_of(ScriptedModel(ModelError("busy", transient=True)))


async def test_fail_breaks_the_stream_half_way():
    chunks = ScriptedModel([TextChunk("a"), Fail(ConnectionError("reset"))]).stream(HI)
    assert await anext(chunks) == TextChunk("a")
    with pytest.raises(ConnectionError):
        await anext(chunks)


async def test_stall_waits_for_its_event():
    go, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([Stall(go, reached), TextChunk("a"), FinishChunk("stop")])
    task = asyncio.create_task(chunks_of(model))
    await reached.wait()
    assert not task.done()
    assert model.active == 1
    go.set()
    assert await task == [TextChunk("a"), FinishChunk("stop")]
    assert model.active == 0


async def test_stall_without_an_event_ends_by_cancellation_only():
    reached = asyncio.Event()
    model = ScriptedModel([Stall(reached=reached)])
    task = asyncio.create_task(chunks_of(model))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert model.active == 0


async def test_closing_early_ends_the_call():
    model = ScriptedModel("a b c")
    async with aclosing(model.stream(HI)) as chunks:
        assert await anext(chunks) == TextChunk("a")
        assert model.active == 1
    assert model.active == 0


async def test_pause_only_takes_time(ask):
    assert (await ask(ScriptedModel([Pause(0.001), TextChunk("a"), FinishChunk("stop")]))).message.text == "a"


async def test_beyond_the_end_of_the_script_is_an_error():
    model = ScriptedModel("a")
    await chunks_of(model)
    with pytest.raises(ModelError, match="1 answers and call 2 came") as caught:
        await chunks_of(model)
    assert not caught.value.transient


async def test_repeat_starts_over(ask):
    model = ScriptedModel("a", "b", repeat=True)
    assert [(await ask(model)).message.text for _ in range(5)] == ["a", "b", "a", "b", "a"]


async def test_an_empty_script_is_an_error_even_with_repeat():
    with pytest.raises(ModelError):
        await chunks_of(ScriptedModel(repeat=True))


async def test_functions_decide_by_the_request(ask):
    def echo(request):
        return call("f") if not request.tools else f"you said {request.messages[-1].text}"

    model = ScriptedModel.of(echo, origin=Origin("echo", "1"))
    assert (await ask(model)).message.tool_calls
    assert model.origin == Origin("echo", "1")


async def test_many_calls_at_once(ask):
    model = ScriptedModel.of(lambda request: request.messages[0].text)
    requests = [ModelRequest(messages=(Message.user(f"text {n}"),)) for n in range(100)]
    answers = await asyncio.gather(*(ask(model, request) for request in requests))
    assert [answer.message.text for answer in answers] == [f"text {n}" for n in range(100)]


async def test_calls_at_once_take_answers_in_the_order_in_which_they_began(ask):
    model = ScriptedModel(*(str(n) for n in range(50)))
    answers = await asyncio.gather(*(ask(model) for _ in range(50)))
    assert [answer.message.text for answer in answers] == [str(n) for n in range(50)]


async def test_a_message_of_media_cannot_be_played():
    with pytest.raises(ModelError, match="ImagePart"):
        await chunks_of(ScriptedModel(Message("assistant", (ImagePart(url="https://x/y.png"),))))


async def test_a_long_run_does_not_keep_every_request():
    model = ScriptedModel("hi", repeat=True)
    for _ in range(2 * REQUESTS_KEPT + 1):
        async for _ in model.stream(HI):
            pass
    assert model.calls == 2 * REQUESTS_KEPT + 1
    assert REQUESTS_KEPT <= len(model.requests) < 2 * REQUESTS_KEPT
