"""A worker process to be paused: `pausing.py URL NAMESPACE EFFECTS GO POINT KIND`.

It says `{"reached": POINT}` when a run comes to that point, and goes on there once the file GO is there.
Points: `before` (the model is about to ask for the tool), `within` (the tool has had its effect), `after`
(the model is about to answer). KIND is of the tool: `at_most_once`, `ordinary`, `read_only`.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from atto import Agent, ToolContext, tool
from atto.models import Chunk, FinishChunk, ModelRequest, PartDone, TextChunk, ToolCallChunk
from atto.protocol.messages import Origin
from atto_workers import Topology, Worker

POINTS = ("before", "within", "after")
KINDS = ("at_most_once", "ordinary", "read_only")


def acting(effects: Path, kind: str, reach: Callable[[str], Awaitable[None]]) -> Agent:
    """Acts once, then answers what the tool said. An effect is a line with its key in the file."""

    @tool(at_most_once=kind == "at_most_once", read_only=kind == "read_only")
    async def act(context: ToolContext) -> str:
        """Acts."""
        with effects.open("a") as file:
            file.write(f"{context.idempotency_key}\n")
        await reach("within")
        return "acted"

    class Model:
        origin = Origin("scripted", "acting")

        async def stream(self, request: ModelRequest):
            last: Chunk
            if request.messages[-1].role == "user":
                await reach("before")
                yield ToolCallChunk(0, "call_0", "act", "{}")
                yield PartDone(None, 0)
                last = FinishChunk("tool_calls")
            else:
                await reach("after")
                yield TextChunk(str(request.messages[-1].content[0].content))
                last = FinishChunk("stop")
            yield last

    return Agent("acting", Model(), tools=[act])


async def main(url: str, namespace: str, effects: str, go: str, point: str, kind: str) -> None:
    def say(**line: object) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    async def reach(where: str) -> None:
        if where == point:
            say(reached=where)
            while not Path(go).exists():
                await asyncio.sleep(0.01)

    agent = acting(Path(effects), kind, reach)
    topology = Topology(namespace, partitions=4)
    await Worker(agent, nats=url, topology=topology, grace=5.0).serve(on_ready=lambda: say(ready=True))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
