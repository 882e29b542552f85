"""What the broker must have before a tool runs."""

import asyncio
from pathlib import Path

import pytest

from atto import Agent, ScriptedModel, ToolContext, events, tool
from atto.models import call
from atto.protocol import codec
from atto.protocol.subjects import Subjects
from atto_workers import Topology, Worker
from tests.integration.child import dying
from tests.integration.histories import check_history
from tests.integration.processes import child
from tests.integration.proxy import Proxy


def calling(name):
    return lambda request: call(name) if request.messages[-1].role == "user" else "done"


async def test_a_tool_with_effects_waits_for_the_stream_and_one_without_does_not(
    worker, client, jetstream, namespace
):
    """With the stream of events gone nothing can be confirmed, and who does not wait for that runs."""
    began: asyncio.Queue[str] = asyncio.Queue()

    @tool
    def pay() -> str:
        """Pays."""
        began.put_nowait("pay")
        return "paid"

    @tool(read_only=True)
    def look() -> str:
        """Looks."""
        began.put_nowait("look")
        return "seen"

    def model(request):
        return calling(request.messages[0].text)(request)

    stream = Subjects(namespace).events_stream
    async with asyncio.timeout(30), worker(Agent("a", ScriptedModel.of(model), tools=[pay, look])):
        await jetstream.api(f"STREAM.DELETE.{stream}")
        paying = await client.submit("first", "pay")
        looking = await client.submit("second", "look")
        assert await began.get() == "look"
        assert began.empty()

        await Topology(namespace, partitions=4).declare(jetstream)
        assert await began.get() == "pay"
        assert (await paying.result()).text == (await looking.result()).text == "done"
        assert began.empty()


async def heard(run):
    return [event async for event in run]


async def calls_in_stream(jetstream, subjects, context):
    """The tools that were called by what the stream of events has of a run, some perhaps more than once."""
    calls = []
    subject = subjects.event(context.session, context.run_id)
    async for stored in jetstream.read_to_end(subjects.events_stream, subject):
        for event in codec.decode_batch(stored.data).events:
            if isinstance(event, events.ModelCompleted):
                calls += [part.name for part in event.message.tool_calls]
    return calls


@pytest.mark.leaves_consumers
@pytest.mark.parametrize("place", ["look", "note"])
async def test_a_worker_that_dies_in_a_tool_repeats_no_effect_under_another_key(
    broker, namespace, worker, client, tmp_path: Path, place
):
    """Its process ends in the tool's first step: what nobody waited for has not left it.

    `look` is read-only; `note` has an effect, and is called by an agent that a call of the turn's agent asks,
    for which nobody waited either. Both calls are in the tool's key.
    """
    effects = tmp_path / "effects"

    async with asyncio.timeout(60):
        async with child("dying", broker.url, namespace, effects) as first:
            await first.said("pid")
            run = await client.submit("s", "go", metadata={"dies_in": place})
            listening = asyncio.create_task(heard(run))
            await first.process.wait()
        async with worker(dying(effects, stalls=False), topology=None, namespace=namespace):
            answer = await run.result()
            seen = await listening
            assert (await client.run("s", "again", metadata={"dies_in": ""}).result()).version == 2
            check_history((await client.snapshot("s")).messages)
        late = [event async for event in client.attach("s", run.run_id)]

    assert answer.text == "done"
    assert late == seen
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    keys = [key for key in effects.read_text().splitlines() if key.startswith(run.run_id)]
    assert len(keys) == (1 if place == "look" else 2)
    assert len(set(keys)) == 1
    assert (f"noting-of-{first.pid}" in keys[0]) == (place == "note")


async def test_the_stream_has_all_calls_that_led_to_an_effect_also_if_the_connection_was_lost(
    broker, namespace, client, jetstream
):
    """It is stalled while the outer model answers, and cut while the asked agent's model does."""
    known: list[str] = []

    async with asyncio.timeout(60), Proxy(broker.url) as proxy:

        @tool(read_only=True)
        def look() -> str:
            """Looks."""
            return "seen"

        @tool
        async def note(context: ToolContext) -> str:
            """Has an effect."""
            known.extend(await calls_in_stream(jetstream, Subjects(namespace), context))
            return "noted"

        def outer(request):
            match sum(message.role == "tool" for message in request.messages):
                case 0:
                    return call("look")
                case 1:
                    proxy.stall()
                    return call("noting", input="go")
                case _:
                    return "done"

        def inner(request):
            if request.messages[-1].role == "tool":
                return "done"
            proxy.cut()
            proxy.flow()
            return call("note")

        noting = Agent("noting", ScriptedModel.of(inner), tools=[note])
        agent = Agent("asking", ScriptedModel.of(outer), tools=[look, noting.as_tool()])
        async with Worker(agent, nats=proxy.url, topology=Topology(namespace, partitions=4), grace=5.0):
            seen = [event async for event in client.run("s", "go")]
    assert list(dict.fromkeys(known)) == ["look", "noting", "note"]
    assert isinstance(seen[-1], events.RunCompleted)
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
