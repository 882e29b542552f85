"""How long a model may be silent, by our own clock."""

import asyncio

import pytest

from atto.broker.alarms import Alarms
from atto.models import FinishChunk, ModelRequest, Pause, ScriptedModel, Stall, TextChunk
from atto.protocol.errors import ModelError
from atto.protocol.messages import Message
from atto_workers import TimeoutPolicy
from atto_workers.gateway.stream import ModelStream
from tests.workers.virtual_time import VirtualLoop, in_virtual_time, now, settle

REQUEST = ModelRequest(messages=(Message.user("hi"),))
POLICY = TimeoutPolicy(first_chunk=30, stall=10, total=100)


def stream_of(model: ScriptedModel) -> ModelStream:
    return ModelStream(model, REQUEST, name="m", timeouts=POLICY, alarms=Alarms())


def outcome(model: ScriptedModel, policy: TimeoutPolicy = POLICY) -> tuple[str, float]:
    """The answer or the error of one stream, and when it came."""

    async def scenario():
        stream = ModelStream(model, REQUEST, name="openai/gpt", timeouts=policy, alarms=Alarms())
        try:
            said = (await stream.read(lambda _: None)).message.text
        except ModelError as error:
            said = str(error) if error.transient else f"permanent: {error}"
        assert model.active == 0, "the stream was not closed"
        return said, now()

    return in_virtual_time(scenario)


def speaking(*gaps: float) -> ScriptedModel:
    items = [item for gap in gaps for item in (Pause(gap), TextChunk("x"))]
    return ScriptedModel([*items, FinishChunk("stop")])


def test_a_model_that_speaks_often_enough_may_take_long():
    assert outcome(speaking(29, *[9] * 7)) == ("x" * 8, 92)


def test_no_first_chunk():
    said = "openai/gpt: no first chunk came within 30 s"
    assert outcome(ScriptedModel([Stall()])) == (said, pytest.approx(30, abs=0.01))


def test_a_stall_after_chunks_counts_from_the_last_one():
    model = ScriptedModel([TextChunk("a"), Pause(9), TextChunk("b"), Pause(5), TextChunk("c"), Stall()])
    said = "openai/gpt: no further chunk came within 10 s"
    assert outcome(model) == (said, pytest.approx(24, abs=0.01))


def test_a_stall_that_is_longer_than_the_wait_for_the_first_chunk():
    policy = TimeoutPolicy(first_chunk=5, stall=20, total=None)
    assert outcome(speaking(4, 19), policy) == ("xx", 23)
    assert outcome(speaking(4, 21), policy)[1] == pytest.approx(24, abs=0.01)


def test_an_answer_that_takes_too_long_in_all():
    said = "openai/gpt: the answer took more than 100 s"
    assert outcome(speaking(*[9] * 20)) == (said, pytest.approx(100, abs=0.01))


def test_a_stream_that_does_not_end_after_its_last_chunk():
    model = ScriptedModel([TextChunk("a"), FinishChunk("stop"), Stall()])
    assert outcome(model)[1] == pytest.approx(10, abs=0.01)


def test_time_outs_can_be_turned_off():
    policy = TimeoutPolicy(first_chunk=None, stall=None, total=None)
    assert outcome(speaking(10_000, 10_000), policy) == ("xx", 20_000)


def test_a_time_out_of_the_models_own_is_no_time_out_of_ours():
    async def scenario():
        stream = stream_of(ScriptedModel(TimeoutError("mine")))
        with pytest.raises(ModelError, match="ScriptedModel raised TimeoutError: mine") as error:
            await stream.read(lambda _: None)
        assert not error.value.transient

    in_virtual_time(scenario)


def test_the_scope_around_a_stream_is_told_from_its_time_out():
    """A deadline of the run at the very instant of the time-out: the run's own wins, and is not swallowed."""

    async def scenario():
        stream = stream_of(ScriptedModel([Stall()]))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await stream.read(lambda _: None)

    in_virtual_time(scenario)


def test_no_timer_outlives_its_stream():
    async def scenario():
        model = ScriptedModel("hi there", [TextChunk("a"), Stall()])
        await stream_of(model).read(lambda _: None)
        task = asyncio.create_task(stream_of(model).read(lambda _: None))
        await settle()
        task.cancel()
        await asyncio.wait([task])
        await asyncio.Event().wait()

    loop = VirtualLoop()
    with (
        asyncio.Runner(loop_factory=lambda: loop) as runner,
        pytest.raises(RuntimeError, match="nothing will ever happen"),
    ):
        runner.run(scenario())
    assert loop.time() == 0


@pytest.mark.parametrize("name", ["first_chunk", "stall", "total"])
def test_a_time_out_of_no_time_is_refused(name):
    with pytest.raises(ValueError):
        TimeoutPolicy(**{name: 0})
