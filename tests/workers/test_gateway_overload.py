"""Many calls at once, of models that are full or down: what they do to one another."""

import asyncio

import pytest

from atto.models import (
    Fail,
    FinishChunk,
    Pause,
    ScriptedModel,
    Stall,
    TextChunk,
    UsageChunk,
)
from atto.protocol.errors import ModelError
from atto.protocol.messages import Usage
from atto_workers import BreakerPolicy, LimitPolicy, RetryPolicy
from tests.workers.gateway_calls import ONE, TWO, Caller, busy, gateway, too_many
from tests.workers.virtual_time import in_virtual_time, now, settle


def test_a_retry_after_holds_up_all_callers_of_that_model_and_no_other():
    async def scenario():
        shared = gateway(retries=RetryPolicy(base=0))
        first = Caller(shared, ScriptedModel(too_many(retry_after=20), "first", origin=ONE))
        second = Caller(shared, ScriptedModel("second", origin=ONE))
        other = Caller(shared, ScriptedModel("other", origin=TWO))
        async with asyncio.TaskGroup() as group:
            group.create_task(first())
            await settle()
            group.create_task(second())
            group.create_task(other())
        assert (other.ended_at, second.ended_at, first.ended_at) == (0, 20, 20)
        assert shared.usage[ONE].throttled == 1

    in_virtual_time(scenario)


def test_who_has_a_fallback_does_not_wait_for_a_long_retry_after():
    async def scenario():
        shared = gateway(retries=RetryPolicy(base=0), limits=LimitPolicy(concurrency=1))
        told = [Pause(1), Fail(too_many(retry_after=20))]
        model = ScriptedModel(told, "first", "first", origin=ONE)
        fallback = ScriptedModel("instead", origin=TWO, repeat=True)
        told_first, queued, later = (Caller(shared, model, fallback) for _ in range(3))
        alone = Caller(shared, model)
        async with asyncio.TaskGroup() as group:
            group.create_task(told_first())
            await settle()
            group.create_task(queued())
            group.create_task(alone())
            await asyncio.sleep(5)
            assert (await later()).text == "instead"
        assert [caller.ended_at for caller in (told_first, queued, later, alone)] == [1, 1, 5, 21]
        assert "not asked for another 20.0 s" in queued.restarts[0]
        usage = shared.usage[ONE]
        assert (usage.refused, usage.throttled, usage.tries, usage.waiting) == (2, 1, 2, 0)
        assert (await Caller(shared, model, fallback)()).text == "first"

    in_virtual_time(scenario)


def test_a_short_retry_after_is_waited_for_with_a_fallback_too():
    async def scenario():
        shared = gateway(retries=RetryPolicy(base=0, fallback_patience=3), limits=LimitPolicy(concurrency=1))
        model = ScriptedModel(too_many(retry_after=3), "first", "first", origin=ONE)
        fallback = ScriptedModel("instead", origin=TWO)
        callers = [Caller(shared, model, fallback) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            for caller in callers:
                group.create_task(caller())
        assert [caller.ended_at for caller in callers] == [3, 3]
        assert fallback.requests == []

    in_virtual_time(scenario)


def test_429s_halve_the_concurrency_and_every_call_is_answered_in_the_end():
    """A provider that takes 5 calls at a time, and a worker that wants 40."""

    async def scenario():
        active = most = 0

        class Provider(ScriptedModel):
            async def stream(self, request):
                nonlocal active, most
                if active >= 5:
                    raise too_many()
                active += 1
                most = max(most, active)
                try:
                    await asyncio.sleep(1)
                    yield TextChunk("hi")
                    yield FinishChunk("stop")
                finally:
                    active -= 1

        shared = gateway(retries=RetryPolicy(tries=12), limits=LimitPolicy(concurrency=40))
        model = Provider(origin=ONE)
        async with asyncio.TaskGroup() as group:
            for _ in range(200):
                group.create_task(Caller(shared, model)())
        usage = shared.usage[ONE]
        assert usage.answered == 200
        assert usage.failed == usage.throttled < 200
        assert most == 5

    in_virtual_time(scenario)


def test_the_concurrency_grows_back_with_the_answers():
    async def scenario():
        model = ScriptedModel.of(lambda _: too_many() if len(model.requests) == 1 else "hi")
        shared = gateway(limits=LimitPolicy(concurrency=4))
        await Caller(shared, model)()
        assert shared.usage[model.origin].concurrency < 4
        for _ in range(10):
            await Caller(shared, model)()
        assert shared.usage[model.origin].concurrency == 4

    in_virtual_time(scenario)


def test_a_refusal_of_the_request_shows_that_the_model_is_there():
    async def scenario():
        wrong = ModelError("bad request", status=400)
        model = ScriptedModel(busy(), wrong, busy(), wrong, "hi", origin=ONE)
        shared = gateway(retries=RetryPolicy(tries=1), breaker=BreakerPolicy(failures=2))
        for _ in range(4):
            with pytest.raises(ModelError):
                await Caller(shared, model)()
        assert (await Caller(shared, model)()).text == "hi"

    in_virtual_time(scenario)


def test_when_the_caller_whose_call_probes_a_model_leaves_the_next_call_probes_it():
    async def scenario():
        model = ScriptedModel(busy(), [Stall()], "well again", origin=ONE)
        shared = gateway(retries=RetryPolicy(tries=1), breaker=BreakerPolicy(failures=1, cool_down=10))
        with pytest.raises(ModelError):
            await Caller(shared, model)()
        await asyncio.sleep(10)
        probe = asyncio.create_task(Caller(shared, model)())
        await settle()
        with pytest.raises(ModelError, match="not asked"):
            await Caller(shared, model)()
        probe.cancel()
        await settle()
        assert (await Caller(shared, model)()).text == "well again"
        assert probe.cancelled()

    in_virtual_time(scenario)


def test_a_cancelled_caller_closes_its_stream_and_touches_no_other():
    async def scenario():
        model = ScriptedModel([TextChunk("a"), Stall()], [Pause(5), *[TextChunk("b"), FinishChunk("stop")]])
        shared = gateway(limits=LimitPolicy(concurrency=2))
        first = asyncio.create_task(Caller(shared, model)())
        await settle()
        second = asyncio.create_task(Caller(shared, model)())
        queued = asyncio.create_task(Caller(shared, model)())
        await settle()
        assert (model.active, shared.usage[model.origin].waiting) == (2, 1)
        queued.cancel()
        await settle()
        assert (model.active, shared.usage[model.origin].waiting) == (2, 0)
        first.cancel()
        await settle()
        assert (model.active, shared.usage[model.origin].active) == (1, 1)
        assert (await second).text == "b"
        assert shared.usage[model.origin].failed == 0
        await asyncio.gather(first, queued, return_exceptions=True)

    in_virtual_time(scenario)


def test_the_slot_is_free_during_the_pause_before_a_retry():
    async def scenario():
        shared = gateway(retries=RetryPolicy(base=10), limits=LimitPolicy(concurrency=1))
        failing = Caller(shared, ScriptedModel(busy(), "late", origin=ONE))
        other = Caller(shared, ScriptedModel("early", origin=ONE))
        async with asyncio.TaskGroup() as group:
            group.create_task(failing())
            group.create_task(other())
        assert (other.ended_at, failing.ended_at) == (0, 10)

    in_virtual_time(scenario)


def test_an_outage_is_not_multiplied_by_retries():
    async def scenario():
        model = ScriptedModel(busy(), origin=ONE, repeat=True)
        policy = RetryPolicy(base=0, budget=0.2, reserve=10)
        shared = gateway(retries=policy, breaker=None)
        for _ in range(500):
            with pytest.raises(ModelError):
                await Caller(shared, model)()
        assert 500 + 100 <= len(model.requests) <= 500 + 110

    in_virtual_time(scenario)


def test_the_breaker_spares_a_model_that_is_down_and_heals():
    async def scenario():
        model = ScriptedModel(*[busy()] * 5, "well again", "and again", origin=ONE)
        fallback = ScriptedModel("instead", origin=TWO, repeat=True)
        shared = gateway(retries=RetryPolicy(base=0), breaker=BreakerPolicy(failures=5, cool_down=10))
        for _ in range(4):
            assert (await Caller(shared, model, fallback)()).text == "instead"
        assert len(model.requests) == 5
        usage = shared.usage[ONE]
        assert (usage.is_open, usage.tries, usage.refused) == (True, 5, 2)
        with pytest.raises(ModelError, match=r"not asked for another 10\.0 s") as error:
            await Caller(shared, model)()
        assert error.value.retry_after == 10
        await asyncio.sleep(10)
        assert (await Caller(shared, model, fallback)()).text == "well again"
        assert (await Caller(shared, model, fallback)()).text == "and again"
        assert not shared.usage[ONE].is_open

    in_virtual_time(scenario)


def test_a_probe_that_is_answered_at_length_keeps_nobody_waiting():
    async def scenario():
        at_length = [TextChunk("well "), Pause(60), TextChunk("again"), FinishChunk("stop")]
        model = ScriptedModel(busy(), at_length, "and again", origin=ONE)
        shared = gateway(retries=RetryPolicy(tries=1), breaker=BreakerPolicy(failures=1, cool_down=10))
        with pytest.raises(ModelError):
            await Caller(shared, model)()
        await asyncio.sleep(10)
        async with asyncio.TaskGroup() as group:
            probe = group.create_task(Caller(shared, model)())
            await settle()
            assert (await Caller(shared, model)()).text == "and again"
            assert now() == 10
        assert (probe.result().text, now()) == ("well again", 70)

    in_virtual_time(scenario)


def test_those_that_queued_when_the_breaker_opened_are_refused_and_use_up_no_limit():
    async def scenario():
        model = ScriptedModel([Pause(1), Fail(busy())], "well again", "and again", origin=ONE)
        shared = gateway(
            retries=RetryPolicy(tries=1),
            breaker=BreakerPolicy(failures=1, cool_down=10),
            limits=LimitPolicy(concurrency=1, requests_per_minute=3),
        )
        results = await asyncio.gather(*(Caller(shared, model)() for _ in range(8)), return_exceptions=True)
        assert all(isinstance(result, ModelError) for result in results)
        assert (len(model.requests), shared.usage[ONE].refused, now()) == (1, 7, 1)
        await asyncio.sleep(10)
        await Caller(shared, model)()
        await Caller(shared, model)()
        assert now() == 11

    in_virtual_time(scenario)


def test_tokens_a_minute_hold_calls_back_by_their_size():
    async def scenario():
        model = ScriptedModel(
            [TextChunk("hi"), UsageChunk(Usage(300, 100)), FinishChunk("stop")], repeat=True
        )
        shared = gateway(limits=LimitPolicy(tokens_per_minute=2000))
        ends = []
        for _ in range(5):
            await Caller(shared, model)()
            ends.append(now())
        # the guess is 1000, for an answer without `max_tokens`; 400 are used
        assert ends == pytest.approx([0, 0, 0, 60, 60], abs=1e-3)

    in_virtual_time(scenario)
