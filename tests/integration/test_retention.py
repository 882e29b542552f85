"""What the stream of events keeps, and for how long: deltas go first, and leave no hole."""

import asyncio

import pytest

from atto import Agent, ScriptedModel, ToolContext, events, tool
from atto.broker.jetstream import JetStream
from atto.models import FinishChunk, Stall, TextChunk, call
from atto.protocol.codec import decode_batch
from atto.protocol.subjects import Subjects
from atto_workers import Topology

PATIENCE = 60.0


async def stored(jetstream: JetStream, namespace: str, pattern: str = "event") -> list[tuple[str, set[str]]]:
    """The lifetimes of the messages that are there, each with the kinds of its events."""
    found: list[tuple[str, set[str]]] = []
    stream = Subjects(namespace).events_stream
    async for message in jetstream.read(stream, f"{namespace}.{pattern}.*.*"):
        kinds = (
            {type(event).__name__ for event in decode_batch(message.data).events} if message.data else set()
        )
        found.append((message.headers.get("Nats-TTL", ""), kinds))
    return found


def talking(begin: asyncio.Event, gate: asyncio.Event):
    """A call, then, once `begin` is set, a word in a message of its own, and the rest after `gate`."""

    def model(request):
        if request.messages[-1].role == "user":
            return call("look")
        return [Stall(begin), TextChunk("one "), Stall(gate), TextChunk("two"), FinishChunk("stop")]

    @tool
    async def look(context: ToolContext) -> str:
        """Looks."""
        return "seen"

    return Agent("talking", ScriptedModel.of(model), tools=[look])


async def test_each_message_says_for_how_long_it_is_kept(worker, client, jetstream, namespace):
    begin, gate = asyncio.Event(), asyncio.Event()
    topology = Topology(namespace, partitions=4, deltas_max_age=60, events_max_age=300)
    async with asyncio.timeout(PATIENCE), worker(talking(begin, gate), topology=topology):
        run = await client.submit("s", "hi")
        while not any("ToolCompleted" in kinds for _, kinds in await stored(jetstream, namespace)):
            await asyncio.sleep(0.02)
        begin.set()
        while not any("TextDelta" in kinds for _, kinds in await stored(jetstream, namespace)):
            await asyncio.sleep(0.02)
        gate.set()
        await run.result()
    found = await stored(jetstream, namespace)
    assert found[0] == ("604800", found[0][1])
    assert "RunStarted" in found[0][1]
    deltas = {"TextDelta", "ReasoningDelta"}
    for lifetime, kinds in found[1:]:
        assert lifetime == ("60" if kinds <= deltas else "300"), kinds
    assert any(kinds <= deltas for _, kinds in found)


@pytest.mark.parametrize("after", [False, True])
async def test_who_comes_after_the_deltas_have_gone_hears_all_records_and_no_hole(
    worker, client, jetstream, namespace, after
):
    """While the run goes on, and after its end."""
    begin, gate = asyncio.Event(), asyncio.Event()
    topology = Topology(namespace, partitions=4, deltas_max_age=1, events_max_age=300)
    async with asyncio.timeout(PATIENCE), worker(talking(begin, gate), topology=topology):
        run = await client.submit("s", "hi")
        while not any("ToolCompleted" in kinds for _, kinds in await stored(jetstream, namespace)):
            await asyncio.sleep(0.02)
        begin.set()
        while not any(kinds == {"TextDelta"} for _, kinds in await stored(jetstream, namespace)):
            await asyncio.sleep(0.02)
        if after:
            gate.set()
            await run.result()
        while any(kinds <= {"TextDelta"} for _, kinds in await stored(jetstream, namespace)):
            await asyncio.sleep(0.1)
        late = asyncio.create_task(_heard(client.attach("s", run.run_id)))
        await asyncio.sleep(0)
        gate.set()
        heard = await late
        end = await run.result()
    assert heard[-1] == end
    records = [type(event).__name__ for event in heard if not isinstance(event, events.TextDelta)]
    assert records == [
        "RunStarted",
        "ModelCompleted",
        "ToolStarted",
        "ToolCompleted",
        "ModelCompleted",
        "RunCompleted",
    ]
    assert end.text == "one two"


async def _heard(run) -> list[events.AnyEvent]:
    return [event async for event in run]


async def test_a_full_stream_keeps_all_it_has_and_runs_go_on_once_there_is_room(
    worker, client, jetstream, namespace
):
    topology = Topology(namespace, partitions=4, events_max_bytes=40_000)
    async with asyncio.timeout(PATIENCE), worker(lambda _: "word " * 300, topology=topology) as running:
        runs = [await client.submit(f"s{number}", "hi") for number in range(30)]
        while await running.unready() is None:
            await asyncio.sleep(0.05)
        await Topology(namespace, events_max_bytes=10 << 20).declare(jetstream)
        answers = [(await run.result()).text for run in runs]
        for run in runs:
            heard = await _heard(client.attach(run.session, run.run_id))
            assert sum(map(events.is_terminal, heard)) == 1
    assert answers == ["word " * 300] * 30
