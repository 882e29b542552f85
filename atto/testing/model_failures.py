"""What goes wrong at a provider, and what the model makes of it: a part of the contract of models."""

# ruff: noqa: D102 - the names of the tests are their sentences

import json

import pytest

from atto.models.base import Model
from atto.testing.model_checks import HI, KEY, ModelTests, ask, close, fails
from atto.testing.model_dialect import Dialect, Said, SaidCall
from atto.testing.model_server import CUT, ModelServer

_ANSWERS = (
    Said(("It is ", "sunny."), reasoning=("let me see",)),
    Said(("One moment.",), calls=(SaidCall("call_a", "f", ('{"a":', "1}")),), finish="tool_calls"),
)
_JUNK = (b"data: {oops\n\n", b"data: 7\n\n")
_ENDINGS = pytest.mark.parametrize("reset", [False, True], ids=["ended", "reset"])
_SAID = pytest.mark.parametrize("said", _ANSWERS, ids=["text", "calls"])


class FailureContract(ModelTests):
    """The promises on failures, one test each."""

    @_SAID
    @_ENDINGS
    async def test_a_stream_cut_between_any_two_events_is_a_transient_error(
        self, dialect: Dialect, server: ModelServer, model: Model, said: Said, *, reset: bool
    ) -> None:
        events = dialect.answer(said)
        for count in range(len(events) - dialect.trailing):
            await _cut(server, model, events[:count], reset=reset)

    @_SAID
    @_ENDINGS
    async def test_a_stream_cut_inside_any_event_is_a_transient_error(
        self, dialect: Dialect, server: ModelServer, model: Model, said: Said, *, reset: bool
    ) -> None:
        events = dialect.answer(said)
        for count in range(len(events) - dialect.trailing):
            event = events[count]
            for at in (1, len(event) // 2, len(event) - 2):
                await _cut(server, model, [*events[:count], event[:at]], reset=reset)

    @_SAID
    @_ENDINGS
    async def test_a_cut_after_the_answer_is_complete_costs_nothing(
        self, dialect: Dialect, server: ModelServer, model: Model, said: Said, *, reset: bool
    ) -> None:
        events = dialect.answer(said)
        for missing in range(dialect.trailing + 1):
            server.reply(*events[: len(events) - missing], *([CUT] if reset else []), ended=False)
            assert (await ask(model)).message.text == "".join(said.text)

    async def test_nobody_listens(self, dialect: Dialect) -> None:
        model = dialect.make_model("http://127.0.0.1:9", api_key=KEY)
        with fails() as caught:
            await ask(model)
        await close(model)
        assert caught.value.transient

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
    async def test_refused_for_good(
        self, dialect: Dialect, server: ModelServer, model: Model, status: int
    ) -> None:
        _refuse(dialect, server, status)
        with fails() as caught:
            await ask(model)
        assert (caught.value.transient, caught.value.status) == (False, status)
        assert len(server.requests) == 1

    @pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
    async def test_refused_for_now_and_not_tried_again(
        self, dialect: Dialect, server: ModelServer, model: Model, status: int
    ) -> None:
        _refuse(dialect, server, status)
        with fails() as caught:
            await ask(model)
        assert (caught.value.transient, caught.value.status) == (True, status)
        assert len(server.requests) == 1

    @pytest.mark.parametrize("status", [429, 503])
    async def test_how_long_to_wait_is_told(
        self, dialect: Dialect, server: ModelServer, model: Model, status: int
    ) -> None:
        _refuse(dialect, server, status, {"retry-after": "7"})
        with fails() as caught:
            await ask(model)
        assert caught.value.retry_after == 7.0

    async def test_an_error_says_what_the_provider_said_but_not_the_key(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        _refuse(dialect, server, 400, message=f"a tool is unknown, {KEY}")
        with fails() as caught:
            await ask(model)
        assert "a tool is unknown" in str(caught.value)

    async def test_a_body_that_is_no_json(self, server: ModelServer, model: Model) -> None:
        server.reply(b"<html>Bad Gateway</html>", status=502, content_type="text/html")
        with fails() as caught:
            await ask(model)
        assert (caught.value.transient, caught.value.status) == (True, 502)

    @_SAID
    async def test_an_error_inside_the_stream(
        self, dialect: Dialect, server: ModelServer, model: Model, said: Said
    ) -> None:
        events = dialect.answer(said)
        for count in range(len(events) - dialect.trailing):
            server.reply(*events[:count], dialect.error_in_stream(f"too busy, {KEY}"))
            with fails() as caught:
                await ask(model)
            assert caught.value.transient
            assert "too busy" in str(caught.value)

    @pytest.mark.parametrize("junk", _JUNK)
    async def test_what_makes_no_sense_is_a_transient_error_whatever_follows(
        self, dialect: Dialect, server: ModelServer, model: Model, junk: bytes
    ) -> None:
        events = dialect.answer(Said(("a", "b")))
        for at in range(len(events) - dialect.trailing):
            server.reply(*events[:at], junk, *events[at:])
            with fails() as caught:
                await ask(model)
            assert caught.value.transient

    async def test_a_page_instead_of_events_is_a_transient_error(
        self, server: ModelServer, model: Model
    ) -> None:
        server.reply(b"<html><body>maintenance</body></html>")
        with fails() as caught:
            await ask(model)
        assert caught.value.transient

    async def test_what_came_before_a_cut_was_streamed(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        events = dialect.answer(Said(("half", " an")))
        server.reply(*events[: -1 - dialect.trailing], CUT)
        seen: list[object] = []
        with fails():
            async for chunk in model.stream(HI):
                seen.append(chunk)  # noqa: PERF401 - a comprehension would lose them to the error
        assert seen

    async def test_after_a_failure_it_works_on(
        self, dialect: Dialect, server: ModelServer, model: Model
    ) -> None:
        server.reply(dialect.answer(Said(("a",)))[0], CUT)
        _refuse(dialect, server, 500)
        for _ in range(2):
            with fails():
                await ask(model)
        server.reply(*dialect.answer(Said(("ok",))))
        assert (await ask(model)).message.text == "ok"


async def _cut(server: ModelServer, model: Model, steps: list[bytes], *, reset: bool) -> None:
    if reset:
        server.reply(*steps, CUT)
    else:
        server.reply(*steps)
    with fails() as caught:
        await ask(model)
    assert caught.value.transient


def _refuse(
    dialect: Dialect,
    server: ModelServer,
    status: int,
    headers: dict[str, str] | None = None,
    *,
    message: str = "no",
) -> None:
    refusal = dialect.refusal(status, message)
    body = json.dumps(refusal.body).encode()
    headers = {**refusal.headers, **(headers or {})}
    server.reply(body, status=status, headers=headers, content_type="application/json")
