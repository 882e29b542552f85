"""What every model adapter must do, as tests: subclass `ModelContract` and say how your provider speaks.

    import pytest
    from atto.testing.model_contract import ModelContract

    class TestMyModel(ModelContract):
        @pytest.fixture
        def dialect(self):
            return MyDialect()  # a `Dialect`: see atto.testing.model_dialect

The suite plays the provider itself, with a server of raw HTTP on loopback. Needs `pytest`, and
`pytest-asyncio` with `asyncio_mode = "auto"`. For failures that explain themselves, call
`pytest.register_assert_rewrite("atto.testing")` in `conftest.py`.
"""

# ruff: noqa: D102 - the names of the tests are their sentences

import json
from typing import Any

import pytest

from atto.models.base import Model, ModelRequest, ReasoningChunk, TextChunk, ToolSpec
from atto.protocol.messages import (
    AnyPart,
    Message,
    Origin,
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
from atto.testing.model_checks import HI, KEY, ask, close, objects
from atto.testing.model_dialect import Dialect, ReadCall, Reading, ReadTurn, Said, SaidCall
from atto.testing.model_failures import FailureContract
from atto.testing.model_server import ModelServer
from atto.testing.model_streams import StreamContract

_WEATHER = ToolSpec(
    "weather",
    "The weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
_ROME = SaidCall("call_a", "weather", ('{"ci', 'ty":"Ro', 'me"}'))
_OSLO = SaidCall("call_b", "weather", ('{"city":"Oslo"}',))
_TOLD = SaidCall("call_c", "weather", ('{"city": "Ünterägeri 🎉", "days": [1, 2.5, null, {"a": "\\""}]}',))
_ELSEWHERE = Origin("another-provider", "another-model")


class ModelContract(StreamContract, FailureContract):
    """The promises of `Model`, one test each; those on streams and on failures are inherited."""

    def test_is_a_model(self, model: Model) -> None:
        assert isinstance(model, Model)

    def test_neither_repr_nor_origin_shows_the_key(self, model: Model) -> None:
        assert KEY not in repr(model) + repr(model.origin)

    def test_the_origin_tells_accounts_apart(self, dialect: Dialect) -> None:
        one, other = (
            dialect.make_model("http://127.0.0.1:9", api_key=KEY, account=account).origin
            for account in ("one", "other")
        )
        assert (one.provider, one.model) == (other.provider, other.model)
        assert one.account != other.account

    async def test_text_comes_piece_by_piece(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        server.reply(*dialect.answer(Said(("It is ", "sunny", "."))))
        chunks = [chunk async for chunk in model.stream(HI)]
        texts = [chunk.text for chunk in chunks if isinstance(chunk, TextChunk) and chunk.text]
        assert texts == ["It is ", "sunny", "."]

    async def test_a_whole_answer(self, dialect: Dialect, server: ModelServer, model: Model) -> None:
        server.reply(*dialect.answer(Said(("It is ", "sunny."))))
        assembled = await ask(model)
        assert assembled.message.text == "It is sunny."
        assert assembled.message.origin == model.origin
        assert (assembled.usage, assembled.finish) == (dialect.usage, "stop")
        assert len(server.requests) == 1

    async def test_an_empty_answer(self, dialect: Dialect, server: ModelServer, model: Model) -> None:
        server.reply(*dialect.answer(Said()))
        assembled = await ask(model)
        assert (assembled.message.text, assembled.message.tool_calls) == ("", ())

    async def test_reasoning_is_apart_from_text(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        server.reply(*dialect.answer(Said(("Sunny.",), reasoning=("let me ", "see"))))
        chunks = [chunk async for chunk in model.stream(HI)]
        thought = "".join(chunk.text for chunk in chunks if isinstance(chunk, ReasoningChunk))
        said = "".join(chunk.text for chunk in chunks if isinstance(chunk, TextChunk))
        assert (thought, said) == ("let me see", "Sunny.")

    @pytest.mark.parametrize("finish", ["stop", "length", "content_filter"])
    async def test_why_it_ended(
        self, dialect: Dialect, server: ModelServer, model: Model, finish: str
    ) -> None:
        server.reply(*dialect.answer(Said(("It is",), finish=finish)))
        assert (await ask(model)).finish == finish

    @pytest.mark.parametrize("calls", [(_ROME,), (_ROME, _OSLO), (_OSLO, _TOLD, _ROME)], ids=len)
    async def test_tool_calls(
        self, dialect: Dialect, server: ModelServer, model: Model, calls: tuple[SaidCall, ...]
    ) -> None:
        server.reply(*dialect.answer(Said(("One moment.",), calls=calls, finish="tool_calls")))
        assembled = await ask(model, _with_tools(Message.user("hi")))
        assert assembled.message.text == "One moment."
        made = [(call.name, call.arguments, call.malformed) for call in assembled.message.tool_calls]
        assert made == [(call.name, _arguments(call), None) for call in calls]
        assert len({call.id for call in assembled.message.tool_calls}) == len(calls)
        assert assembled.finish == "tool_calls"

    async def test_a_tool_without_arguments(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        server.reply(*dialect.answer(Said(calls=(SaidCall("call_a", "now"),), finish="tool_calls")))
        (call,) = (await ask(model)).message.tool_calls
        assert (call.name, call.arguments) == ("now", {})

    async def test_what_is_asked(self, dialect: Dialect, server: ModelServer, model: Model) -> None:
        server.reply(*dialect.answer(Said(("ok",))))
        messages = (Message.user("hi"), Message.assistant("hello"), Message.user("é🎉"))
        await ask(model, ModelRequest(messages=messages, instruction="Be brief.", tools=(_WEATHER,)))
        turns = [ReadTurn("user", "hi"), ReadTurn("assistant", "hello"), ReadTurn("user", "é🎉")]
        assert _last(dialect, server) == Reading(turns, "Be brief.", ("weather",))

    async def test_the_results_of_tools_go_back(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        server.reply(*dialect.answer(Said(calls=(_ROME, _TOLD), finish="tool_calls")))
        answer = (await ask(model, _with_tools(Message.user("hi")))).message
        rome, told = answer.tool_calls
        results = (
            ToolResultPart(told.id, told.name, "rain"),
            ToolResultPart(rome.id, rome.name, "the tool broke", is_error=True),
        )
        server.reply(*dialect.answer(Said(("ok",))))
        await ask(model, _with_tools(Message.user("hi"), answer, Message("tool", results)))
        _, turn = _last(dialect, server).turns
        assert turn.calls == (
            ReadCall("weather", _arguments(_ROME), "the tool broke"),
            ReadCall("weather", _arguments(_TOLD), "rain"),
        )

    async def test_a_call_without_a_result_gets_one(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        server.reply(*dialect.answer(Said(calls=(_ROME, _OSLO), finish="tool_calls")))
        answer = (await ask(model, _with_tools(Message.user("hi")))).message
        first = ToolResultPart(answer.tool_calls[0].id, "weather", "sunny")
        server.reply(*dialect.answer(Said(("ok",))))
        await ask(
            model, _with_tools(Message.user("hi"), answer, Message("tool", (first,)), Message.user("so?"))
        )
        _, turn, question = _last(dialect, server).turns
        rome, oslo = turn.calls
        assert rome.result == "sunny"
        assert oslo.result is not None
        assert "interrupted" in oslo.result
        assert question == ReadTurn("user", "so?")

    async def test_opaque_parts_go_back_verbatim_and_in_order(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        natives = await self._answered(dialect, server, model)
        sent = [value for value in objects(server.requests[-1].body) if value in natives]
        assert sent == natives

    async def test_opaque_parts_go_to_no_other_account(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        other = dialect.make_model(server.url, api_key=KEY, account="another")
        natives = await self._answered(dialect, server, model, then=other)
        await close(other)
        assert [value for value in objects(server.requests[-1].body) if value in natives] == []

    async def test_the_history_of_another_provider_is_told_in_plain_words(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        strange = {"strange": "part"}
        content: tuple[AnyPart, ...] = (
            ReasoningPart("hm", native=strange),
            TextPart("One moment.", native=strange),
            ToolCallPart("toolu:1/ü", "weather", {"city": "Rome"}, native=strange),
            ToolCallPart("toolu:2", "wea ther", malformed="{oops"),
        )
        results = (
            ToolResultPart("toolu:1/ü", "weather", "sunny"),
            ToolResultPart("toolu:2", "wea ther", "bad arguments", is_error=True),
        )
        server.reply(*dialect.answer(Said(("ok",))))
        history = (Message.user("hi"), Message("assistant", content, _ELSEWHERE), Message("tool", results))
        await ask(model, _with_tools(*history))
        user, turn = _last(dialect, server).turns
        assert (user.text, turn.text) == ("hi", "One moment.")
        assert turn.calls[0] == ReadCall("weather", {"city": "Rome"}, "sunny")
        assert turn.calls[1].result == "bad arguments"
        assert strange not in list(objects(server.requests[-1].body))

    async def _answered(
        self, dialect: Dialect, server: ModelServer, model: Model, then: Model | None = None
    ) -> list[Any]:
        """Has an opaque answer, and sends it back to `then`. Gives the parts in question."""
        opaque = dialect.opaque()
        if opaque is None:
            pytest.skip("the API has no opaque parts")
        server.reply(*opaque.events)
        answer = (await ask(model, _with_tools(Message.user("hi")))).message
        results = tuple(ToolResultPart(call.id, call.name, "done") for call in answer.tool_calls)
        ending = (Message("tool", results),) if results else (Message.user("go on"),)
        server.reply(*dialect.answer(Said(("ok",))))
        await ask(then or model, _with_tools(Message.user("hi"), answer, *ending))
        return opaque.natives


def _with_tools(*messages: Message) -> ModelRequest:
    return ModelRequest(messages=messages, tools=(_WEATHER,))


def _arguments(call: SaidCall) -> dict[str, Any]:
    return json.loads("".join(call.arguments))


def _last(dialect: Dialect, server: ModelServer) -> Reading:
    """The last request, as the provider understands it."""
    return dialect.reading(server.requests[-1].body)
