"""Calls through the gateway: tried again, handed on, counted, by whichever policy."""

import pytest

from atto.models import (
    Fail,
    FinishChunk,
    ScriptedModel,
    Stall,
    TextChunk,
    UsageChunk,
)
from atto.protocol.errors import ModelError
from atto.protocol.messages import Origin, Usage
from atto_workers import ModelPolicy, RetryPolicy, TimeoutPolicy
from atto_workers.gateway import ModelGateway
from tests.workers.gateway_calls import ONE, TWO, Caller, busy, gateway
from tests.workers.virtual_time import in_virtual_time, now


def test_a_stream_that_breaks_is_begun_anew():
    async def scenario():
        model = ScriptedModel([TextChunk("half"), Fail(busy())], [TextChunk("cut")], "all of it", origin=ONE)
        caller = Caller(gateway(), model)
        assert (await caller()).text == "all of it"
        assert caller.restarts == [
            "busy",
            "scripted/one: the stream ended without its terminal marker",
        ]
        assert now() == 0.5 + 1.0
        usage = caller.gateway.usage[ONE]
        assert (usage.calls, usage.answered, usage.tries, usage.failed, usage.retries) == (1, 1, 3, 2, 2)

    in_virtual_time(scenario)


def test_a_permanent_error_stands_also_where_there_is_another_model():
    async def scenario():
        other = ScriptedModel("no", origin=TWO)
        caller = Caller(gateway(), ScriptedModel(ModelError("bad request", status=400), origin=ONE), other)
        with pytest.raises(ModelError, match=r"^bad request$"):
            await caller()
        assert other.requests == []

    in_virtual_time(scenario)


@pytest.mark.parametrize("status", [401, 402, 403, 404, 429])
def test_what_lies_with_the_account_or_the_model_goes_to_the_next_one_at_once(status):
    async def scenario():
        model = ScriptedModel(ModelError("not for you", status=status), origin=ONE)
        caller = Caller(gateway(), model, ScriptedModel("here", origin=TWO))
        answer = await caller()
        assert (answer.text, answer.origin, now()) == ("here", TWO, 0)

    in_virtual_time(scenario)


def test_the_next_model_is_asked_when_the_policy_gives_up():
    async def scenario():
        model = ScriptedModel(*[[TextChunk("half"), Fail(busy())]] * 4, origin=ONE)
        caller = Caller(gateway(), model, ScriptedModel("here", origin=TWO))
        answer = await caller()
        assert (answer.text, answer.origin) == ("here", TWO)
        assert caller.restarts == ["busy"] * 4
        first, second = caller.gateway.usage[ONE], caller.gateway.usage[TWO]
        assert (first.answered, first.tries, second.answered, second.taken_over) == (0, 4, 1, 1)

    in_virtual_time(scenario)


def test_when_no_model_can_answer_the_error_names_all_failures():
    async def scenario():
        policy = RetryPolicy(tries=1)
        models = (
            ScriptedModel(busy("one", retry_after=9), origin=ONE),
            ScriptedModel(ModelError("two", status=401), origin=TWO),
        )
        with pytest.raises(ModelError, match="no model could answer: one; two") as error:
            await Caller(gateway(retries=policy), *models)()
        assert (error.value.transient, error.value.status, error.value.retry_after) == (True, 401, 9)

    in_virtual_time(scenario)


def test_a_stall_is_tried_again():
    async def scenario():
        model = ScriptedModel([TextChunk("so "), Stall()], "done", origin=ONE)
        caller = Caller(gateway(timeouts=TimeoutPolicy(stall=5)), model)
        assert (await caller()).text == "done"
        assert caller.restarts == ["scripted/one: no further chunk came within 5 s"]
        assert model.active == 0

    in_virtual_time(scenario)


def test_tokens_are_counted_also_those_of_tries_that_failed():
    async def scenario():
        model = ScriptedModel(
            [UsageChunk(Usage(10, 1)), TextChunk("half"), Fail(busy())],
            [TextChunk("hi"), UsageChunk(Usage(10, 1)), UsageChunk(Usage(10, 5)), FinishChunk("stop")],
            origin=ONE,
        )
        shared = gateway()
        await Caller(shared, model)()
        assert shared.usage[ONE].tokens == Usage(20, 6)

    in_virtual_time(scenario)


def test_policies_by_pattern_and_by_function():
    async def scenario():
        once, twice = (ModelPolicy(retries=RetryPolicy(tries=tries, base=0)) for tries in (1, 2))
        for policies in (
            {"scripted:o*": once, "scripted:*": twice},
            lambda origin: once if origin.model == "one" else twice,
        ):
            models = [ScriptedModel(busy(), origin=origin, repeat=True) for origin in (ONE, TWO)]
            with pytest.raises(ModelError):
                await Caller(gateway(policies), *models)()
            assert [len(model.requests) for model in models] == [1, 2]
        other = ScriptedModel(busy(), origin=Origin("elsewhere", "three"), repeat=True)
        with pytest.raises(ModelError):
            await Caller(gateway({"scripted:*": once}), other)()
        assert len(other.requests) == 4

    in_virtual_time(scenario)


class Nonsense:
    origin = ONE

    def __init__(self, stream) -> None:
        self.stream = stream


async def _yields_nonsense(request):
    yield TextChunk(b"not text")  # type: ignore[arg-type]
    yield FinishChunk("stop")


async def _yields_nothing(request):
    for chunk in ():
        yield chunk


@pytest.mark.parametrize("stream", [_yields_nonsense, _yields_nothing, lambda request: [], None])
def test_a_stream_that_makes_no_sense_is_an_error_that_names_the_model(stream):
    async def scenario():
        with pytest.raises(ModelError, match=r"scripted/one") as error:
            await Caller(gateway(), Nonsense(stream))()  # type: ignore[arg-type]
        assert error.value.transient == (stream is _yields_nothing)

    in_virtual_time(scenario)


def test_policies_that_are_none_are_refused_at_once():
    with pytest.raises(TypeError, match="give a ModelPolicy"):
        ModelGateway(RetryPolicy())  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="maps 'openai:\\*' to an object of type int"):
        ModelGateway({"openai:*": 5})  # type: ignore[dict-item]
