"""What the broker must have before a tool runs."""

import asyncio

from atto import Agent, ScriptedModel, tool
from atto.models import call
from atto.protocol.subjects import Subjects
from atto_workers import Topology


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
