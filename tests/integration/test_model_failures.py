"""What callers see of a model that breaks, stalls, refuses or is full, through a real worker."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from atto import Agent, events
from atto.models import Fail, FinishChunk, ScriptedModel, Stall, TextChunk, UsageChunk, call
from atto.protocol.errors import BrokerUnavailable, ModelError
from atto.protocol.messages import Origin, Usage
from atto_client import RunCancelled, RunFailed
from atto_workers import BreakerPolicy, LimitPolicy, ModelPolicy, RetryPolicy, Runtime, TimeoutPolicy

ONE, TWO = Origin("scripted", "one"), Origin("scripted", "two")
AT_ONCE = RetryPolicy(base=0)


def busy(**options) -> ModelError:
    return ModelError("busy", transient=True, **{"status": 503, **options})


def text_of(seen) -> str:
    """The deltas that were not voided."""
    said: list[str] = []
    for event in seen:
        match event:
            case events.TextDelta(text=text):
                said.append(text)
            case events.StepRestarted():
                said.clear()
    return "".join(said)


def reasons_of(seen) -> list[str]:
    return [event.reason for event in seen if isinstance(event, events.StepRestarted)]


def origin_of(seen) -> Origin | None:
    return next(event.message.origin for event in seen if isinstance(event, events.ModelCompleted))


async def test_a_retry_voids_the_deltas_of_the_try_before(worker, client):
    model = ScriptedModel([TextChunk("half an "), Fail(busy())], busy(), "a whole answer")
    async with worker(model, models=ModelPolicy(retries=AT_ONCE)) as running:
        seen = [event async for event in client.run("s", "hi")]
        usage = running.usage[model.origin]
    assert isinstance(seen[-1], events.RunCompleted)
    assert text_of(seen) == seen[-1].text == "a whole answer"
    assert reasons_of(seen) == ["the model failed: busy"]  # the second failure had said nothing
    assert (usage.calls, usage.tries, usage.failed, usage.retries) == (1, 3, 2, 2)


async def test_a_stall_ends_its_stream_and_is_tried_again(worker, client):
    model = ScriptedModel([TextChunk("well "), Stall()], [Stall()], "here I am")
    policy = ModelPolicy(retries=AT_ONCE, timeouts=TimeoutPolicy(first_chunk=0.3, stall=0.5))
    async with worker(model, models=policy):
        seen = [event async for event in client.run("s", "hi")]
        assert model.active == 0
    assert text_of(seen) == "here I am"
    assert reasons_of(seen) == [
        "the model failed: scripted/scripted: no further chunk came within 0.5 s",
    ]


async def test_a_fallback_answers_and_says_so(worker, client):
    first = ScriptedModel([TextChunk("half"), Fail(busy())], origin=ONE, repeat=True)
    second = ScriptedModel("instead", origin=TWO)
    agent = Agent("doubly", first, fallbacks=[second])
    async with worker(agent, models=ModelPolicy(retries=RetryPolicy(tries=2, base=0))) as running:
        seen = [event async for event in client.run("s", "hi")]
        assert running.usage[TWO].taken_over == 1
    assert text_of(seen) == "instead"
    assert reasons_of(seen) == ["the model failed: busy"] * 2
    assert origin_of(seen) == TWO


async def test_every_step_begins_with_the_first_model(worker, client):
    first = ScriptedModel(ModelError("no such key", status=401), "back again", origin=ONE)
    second = ScriptedModel(call("unknown_tool"), origin=TWO)
    async with worker(Agent("doubly", first, fallbacks=[second])):
        seen = [event async for event in client.run("s", "hi")]
    origins = [event.message.origin for event in seen if isinstance(event, events.ModelCompleted)]
    assert origins == [TWO, ONE]


async def test_no_model_answers(worker, client):
    agent = Agent(
        "doubly",
        ScriptedModel(busy(), origin=ONE),
        fallbacks=[ScriptedModel(ModelError("no such key", status=401), origin=TWO)],
    )
    async with worker(agent, models=ModelPolicy(retries=RetryPolicy(tries=1))):
        seen = [event async for event in client.run("s", "hi")]
    assert isinstance(seen[-1], events.RunFailed)
    assert seen[-1].message == "no model could answer: busy; no such key"
    assert seen[-1].retryable


async def test_429s_make_the_worker_ask_less_at_a_time(worker, client):
    """The provider takes two calls at a time."""
    gate, full = asyncio.Event(), asyncio.Event()
    active = 0

    class Provider(ScriptedModel):
        async def stream(self, request):
            nonlocal active
            if active == 2:
                full.set()
                raise ModelError("too many", transient=True, status=429)
            active += 1
            try:
                await gate.wait()
                await asyncio.sleep(0)
                yield TextChunk("hi")
                yield FinishChunk("stop")
            finally:
                active -= 1

    model = Provider()
    retries = RetryPolicy(tries=50, base=0.01, cap=0.05)
    policy = ModelPolicy(retries=retries, limits=LimitPolicy(concurrency=16))
    async with worker(model, models=policy) as running:
        runs = [await client.submit(f"s{number}", "hi") for number in range(12)]
        await full.wait()
        gate.set()
        for run in runs:
            assert (await run.result()).text == "hi"
        usage = running.usage[model.origin]
    assert usage.answered == 12
    assert usage.throttled == usage.failed > 0
    assert usage.concurrency < 16


async def test_cancelling_a_run_that_queues_for_the_model_touches_no_other(worker, client):
    gate, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([TextChunk("first"), Stall(gate, reached), FinishChunk("stop")], "third")
    async with worker(model, models=ModelPolicy(limits=LimitPolicy(concurrency=1))) as running:
        first = await client.submit("a", "hi")
        await reached.wait()
        queued = await client.submit("b", "hi")
        while running.usage[model.origin].waiting == 0:
            await asyncio.sleep(0.01)
        third = await client.submit("c", "hi")
        await queued.cancel()
        with pytest.raises(RunCancelled):
            await queued.result()
        assert model.active == 1
        gate.set()
        assert (await first.result()).text == "first"
        assert (await third.result()).text == "third"
        assert len(model.requests) == 2


async def test_a_deadline_holds_while_a_run_queues_for_the_model(worker, client):
    gate, reached = asyncio.Event(), asyncio.Event()
    model = ScriptedModel([Stall(gate, reached), TextChunk("first"), FinishChunk("stop")])
    async with worker(model, models=ModelPolicy(limits=LimitPolicy(concurrency=1))) as running:
        first = await client.submit("a", "hi")
        await reached.wait()
        late = await client.submit("b", "hi", expires=datetime.now(UTC) + timedelta(seconds=0.4))
        with pytest.raises(RunFailed) as failure:
            await late.result()
        assert failure.value.reason == "expired"
        assert running.usage[model.origin].waiting == 0
        gate.set()
        assert (await first.result()).text == "first"


async def test_a_deadline_holds_while_a_run_waits_to_try_again(worker, client):
    model = ScriptedModel(busy(retry_after=50.0))
    async with worker(model):
        run = await client.submit("s", "hi", expires=datetime.now(UTC) + timedelta(seconds=0.4))
        with pytest.raises(RunFailed) as failure:
            await run.result()
    assert failure.value.reason == "expired"


async def test_the_breaker_spares_a_model_that_is_down_and_heals(worker, client):
    is_down = True
    model = ScriptedModel.of(lambda _: busy() if is_down else "well again")
    policy = ModelPolicy(retries=AT_ONCE, breaker=BreakerPolicy(failures=3, cool_down=0.5))
    async with worker(model, models=policy) as running:
        for _ in range(5):
            with pytest.raises(RunFailed) as failure:
                await (await client.submit("s", "hi")).result()
            assert failure.value.retryable
        assert running.usage[model.origin].refused > 0
        assert len(model.requests) < 10  # 20 without it; 3, and whatever probes there was time for
        is_down = False
        async with asyncio.timeout(10):
            while True:
                try:
                    answer = await (await client.submit("s", "hi")).result()
                except RunFailed:
                    continue
                break
        assert answer.text == "well again"
        assert not running.usage[model.origin].is_open


async def test_usage_is_counted_by_model(broker, namespace):
    model = ScriptedModel([TextChunk("hi"), UsageChunk(Usage(7, 3)), FinishChunk("stop")], repeat=True)
    runtime = Runtime(Agent("counted", model), nats=broker.url, namespace=namespace, worker={"grace": 5.0})
    with pytest.raises(BrokerUnavailable):
        _ = runtime.usage
    async with runtime:
        for _ in range(3):
            await (await runtime.submit("s", "hi")).result()
        usage = runtime.usage[model.origin]
    assert (usage.calls, usage.answered, usage.tokens) == (3, 3, Usage(21, 9))


async def test_fallbacks_are_closed_with_the_worker(worker):
    class Closing(ScriptedModel):
        closed = 0

        async def aclose(self) -> None:
            self.closed += 1

    models = [Closing(origin=ONE), Closing(origin=TWO)]
    async with worker(Agent("closing", models[0], fallbacks=models[1:])):
        pass
    assert [model.closed for model in models] == [1, 1]
