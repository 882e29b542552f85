"""How streams live side by side, end early, and arrive in pieces: a part of the contract of models."""

# ruff: noqa: D102 - the names of the tests are their sentences

import asyncio
from contextlib import aclosing

import pytest

from atto.models.base import Model, ModelRequest, TextChunk
from atto.protocol.messages import Message
from atto.testing.model_checks import HI, ModelTests, ask, close, first_text, within
from atto.testing.model_dialect import Dialect, Said, SaidCall
from atto.testing.model_server import ModelServer, Reply, Request, Step

_MANY = 500
_ODD = "é🎉漢字\u2028"


class StreamContract(ModelTests):
    """The promises on streams, one test each."""

    async def test_cancelling_in_the_middle_closes_the_connection(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        server.reply(*_unfinished(dialect, "a"), asyncio.Event())
        seen = asyncio.Event()

        async def listen() -> None:
            async for chunk in model.stream(HI):
                if isinstance(chunk, TextChunk):
                    seen.set()

        await _cancelled(asyncio.create_task(listen()), seen)
        await within(server.gone.wait())
        assert server.open == 0

    async def test_cancelling_before_the_first_byte_closes_the_connection(
        self, server: ModelServer, model: Model
    ) -> None:
        server.reply(asyncio.Event())
        await _cancelled(asyncio.create_task(ask(model)), server.arrived)
        await within(server.gone.wait())
        assert server.open == 0

    async def test_leaving_early_closes_the_connection_and_touches_no_other_stream(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        go = asyncio.Event()
        events = dialect.answer(Said(("a", "b", "c")))
        middle = len(events) - dialect.trailing - 1
        server.reply(*events[:middle], go, *events[middle:])
        async with aclosing(model.stream(HI)) as other:
            text = await first_text(other)
            server.reply(*_unfinished(dialect, "x"), asyncio.Event())
            async with aclosing(model.stream(HI)) as chunks:
                assert await within(first_text(chunks)) == "x"
            await within(server.gone.wait())
            assert server.open == 1
            go.set()
            text += "".join([chunk.text async for chunk in other if isinstance(chunk, TextChunk)])
        assert text == "abc"

    async def test_a_stream_that_stalls_holds_up_no_other_and_goes_on(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        go = asyncio.Event()
        first, *rest = dialect.answer(Said(("It is ", "sunny.")))
        server.reply(first, go, *rest)
        stalled = asyncio.create_task(ask(model))
        await within(server.arrived.wait())
        for number in range(3):
            server.reply(*dialect.answer(Said((f"{number}",))))
            assert (await within(ask(model))).message.text == f"{number}"
        assert not stalled.done()
        go.set()
        assert (await within(stalled)).message.text == "It is sunny."

    async def test_one_connection_serves_one_request_after_the_other(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        for _ in range(5):
            server.reply(*dialect.answer(Said(("a",))))
            await ask(model)
        assert server.connections == 1

    async def test_five_hundred_streams_at_once(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        everybody_is_here = asyncio.Barrier(_MANY)

        def respond(request: Request) -> Reply:
            first, *rest = dialect.answer(Said(("you said ", dialect.reading(request.body).turns[-1].text)))
            return Reply.of(first, everybody_is_here, *rest)

        server.respond = respond
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(ask(model, ModelRequest(messages=(Message.user(f"word {number}"),))))
                for number in range(_MANY)
            ]
        assert [task.result().message.text for task in tasks] == [
            f"you said word {number}" for number in range(_MANY)
        ]

    async def test_one_event_loop_after_the_other(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        async def use() -> str:
            try:
                return (await ask(model)).message.text
            finally:
                await close(model)

        for number in range(2):
            for said in (f"here {number}", f"there {number}"):
                server.reply(*dialect.answer(Said((said,))))
            assert (await ask(model)).message.text == f"here {number}"
            assert await asyncio.to_thread(asyncio.run, use()) == f"there {number}"

    async def test_closing_twice_and_going_on(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        for _ in range(2):
            server.reply(*dialect.answer(Said(("a",))))
            assert (await ask(model)).message.text == "a"
            await close(model)
            await close(model)

    async def test_what_means_nothing_may_stand_anywhere(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        said = Said(("a", "b"), calls=(SaidCall("call_a", "now"),), finish="tool_calls")
        steps: list[Step] = [dialect.noise]
        for event in dialect.answer(said):
            steps += [event, dialect.noise]
        server.reply(*steps)
        assembled = await ask(model)
        assert (assembled.message.text, len(assembled.message.tool_calls)) == ("ab", 1)
        assert (assembled.usage, assembled.finish) == (dialect.usage, "tool_calls")

    async def test_characters_split_between_bytes_at_every_position(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        data = b"".join(dialect.answer(Said((_ODD,))))
        positions = [at for at in range(1, len(data)) if data[at] > 127 or data[at - 1] > 127]
        assert positions, "the dialect's answers are to hold text beyond ASCII as it is"
        for at in positions:
            server.reply(data[:at], data[at:])
            assert (await ask(model)).message.text == _ODD
        server.reply(*(data[at : at + 1] for at in range(len(data))))
        assert (await ask(model)).message.text == _ODD

    async def test_lines_may_end_with_a_carriage_return(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        server.reply(*(event.replace(b"\n", b"\r\n") for event in dialect.answer(Said(("a", "b")))))
        assert (await ask(model)).message.text == "ab"


async def _cancelled(task: "asyncio.Task[object]", seen: asyncio.Event) -> None:
    await within(seen.wait())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def _unfinished(dialect: Dialect, text: str) -> list[bytes]:
    return dialect.answer(Said((text,)))[: -1 - dialect.trailing]
