"""What a model may ask for at once, and how long its arguments may be."""

import asyncio
import math

import pytest

from atto import Agent, ScriptedModel, events, tool
from atto.models import FinishChunk, ToolCallChunk, call
from atto.models.assemble import MAX_ARGUMENTS, MAX_CALLS, Assembler
from atto.models.call_pieces import CallPieces
from atto.protocol.errors import InvalidAgent, ModelError
from atto_workers import ModelPolicy, RetryPolicy

PATIENCE = 40


async def heard(run):
    async with asyncio.timeout(PATIENCE):
        return [event async for event in run]


def results(request):
    return [str(part.content) for part in request.messages[-1].content]


async def test_no_more_calls_run_side_by_side_than_the_agent_allows(worker, client):
    running, most = 0, []

    @tool
    async def look() -> str:
        """Looks."""
        nonlocal running
        running += 1
        most.append(running)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        running -= 1
        return "seen"

    def script(request):
        if request.messages[-1].role == "tool":
            return " ".join(results(request))
        return [*(call("look") for _ in range(20)), FinishChunk("tool_calls")]

    agent = Agent("a", ScriptedModel.of(script), tools=[look], max_parallel_tools=3)
    async with worker(agent):
        assert (await client.run("s", "go").result()).text == " ".join(["seen"] * 20)
    assert max(most) == 3
    with pytest.raises(InvalidAgent, match="max_parallel_tools is 0"):
        Agent("a", ScriptedModel.of(script), max_parallel_tools=0)


async def test_a_model_that_asks_for_too_many_tools_fails_its_run(worker, client):
    @tool
    def look() -> str:
        """Looks."""
        return "seen"

    script = [*(call("look") for _ in range(MAX_CALLS + 1)), FinishChunk("tool_calls")]
    policy = ModelPolicy(retries=RetryPolicy(tries=1))
    async with worker(Agent("a", ScriptedModel.of(lambda _: script), tools=[look]), models=policy):
        ended = (await heard(client.run("s", "go")))[-1]
    assert isinstance(ended, events.RunFailed)
    assert f"more than {MAX_CALLS} tools" in ended.message


async def test_arguments_that_are_too_long_are_told_to_the_model(worker, client):
    seen = []

    @tool
    def keep(text: str) -> str:
        """Keeps."""
        seen.append(text)
        return "kept"

    def script(request):
        if request.messages[-1].role == "tool":
            return results(request)[0]
        pieces = [ToolCallChunk(0, arguments="x" * 65_536) for _ in range(32)]
        return [
            *(ToolCallChunk(0, id="c", name="keep", arguments='{"text": "'), *pieces),
            *(ToolCallChunk(0, arguments='"}'), FinishChunk("tool_calls")),
        ]

    async with worker(Agent("a", ScriptedModel.of(script), tools=[keep])):
        text = (await client.run("s", "go").result()).text
    assert f"more than {MAX_ARGUMENTS:,} bytes" in text
    assert not seen


@pytest.mark.parametrize("piece", ["x" * 65_536, "ü" * 32_768, "\U0001f600" * 16_384])
def test_arguments_without_end_end_the_stream_and_take_bounded_memory(piece):
    assembler, pieces = Assembler(), CallPieces()
    kept = 0
    with pytest.raises(ModelError, match="bytes of arguments"):
        for _ in range(4000):  # 250 MB
            pieces.place(index=0, call_id="c", name="n", arguments=piece)
            assembler.add(ToolCallChunk(0, "c", "n", piece))
            kept = sum(map(len, assembler._calls[0].pieces))
            assert sum(map(len, pieces.calls[0].extent._unread)) <= 131_072
    assert 0 < kept <= MAX_ARGUMENTS


@pytest.mark.parametrize("value", [math.nan, math.inf, {"a": [1.0, -math.inf, None]}])
@pytest.mark.parametrize("into", ["result", "state"])
async def test_a_number_that_json_has_not_is_told(worker, client, value, into):
    from atto import ToolContext

    @tool
    def measure(context: ToolContext):
        """Measures."""
        if into == "state":
            context.state["value"] = value
            return None
        return value

    def script(request):
        return results(request)[0] if request.messages[-1].role == "tool" else call("measure")

    async with worker(Agent("a", ScriptedModel.of(script), tools=[measure])):
        text = (await client.run("s", "go").result()).text
    assert "NaN or an infinity" in text
