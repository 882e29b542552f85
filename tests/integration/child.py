"""A process to be killed: `child.py runtime DATA_DIR EFFECTS` or `child.py worker URL NAMESPACE EFFECTS`
(`team` instead of `worker`: its agent is asked by another one; `dying`: it ends itself in a tool; `blocking`:
a tool of it blocks the event loop).

Prints one JSON line when it is ready, and one when a run has come to where it stalls. It stalls in its second
model call, after half of the answer, if the user says `stall`; a tool's effect is a line in the file EFFECTS.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from atto import Agent, ToolContext, tool
from atto.models import FinishChunk, ScriptedModel, Stall, TextChunk, call
from atto.protocol.messages import Message, ToolCallPart
from atto_workers import Runtime, Topology, Worker


def say(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def agent(effects: Path, *, stalls: bool) -> Agent:
    """Calls a tool with an effect, then answers `<pid> <number of user messages>: <what the user said>`."""

    @tool
    async def note(context: ToolContext) -> str:
        """Leaves a trace."""
        with effects.open("a") as file:
            file.write(f"{context.idempotency_key}\n")
        context.state["notes"] = context.state.get("notes", 0) + 1
        return "noted"

    def model(request):
        if request.messages[-1].role == "user":
            return call("note")
        users = [message.text for message in request.messages if message.role == "user"]
        answer = [TextChunk(f"{os.getpid()} "), TextChunk(f"{len(users)}: "), TextChunk(users[-1])]
        if stalls and users[-1] == "stall":
            return [*answer[:2], _Announce(), *answer[2:], FinishChunk("stop")]
        return [*answer, FinishChunk("stop")]

    return Agent("noting", ScriptedModel.of(model), tools=[note])


def team(effects: Path, *, stalls: bool) -> Agent:
    """Answers what the agent above answers, which it asks what the user said."""

    def model(request):
        last = request.messages[-1]
        return call("noting", input=last.text) if last.role == "user" else last.content[0].content

    return Agent("coordinator", ScriptedModel.of(model), tools=[agent(effects, stalls=stalls).as_tool()])


def dying(effects: Path, *, stalls: bool) -> Agent:
    """Looks, then asks another agent to note something, then answers. Calls are named after this process.

    If `stalls`, it is killed in the middle of the tool that the turn names in `dies_in`, after its effect and
    before anything else in the process can run.
    """

    def end(context: ToolContext, name: str) -> None:
        if stalls and context.metadata["dies_in"] == name:
            os.kill(os.getpid(), signal.SIGKILL)

    @tool(read_only=True)
    async def look(context: ToolContext) -> str:
        """Looks."""
        end(context, "look")
        return "seen"

    @tool
    async def note(context: ToolContext) -> str:
        """Leaves a trace."""
        with effects.open("a") as file:
            file.write(f"{context.run_id} {context.path} {context.idempotency_key}\n")
        end(context, "note")
        return "noted"

    def calling(*names: str) -> ScriptedModel:
        def model(request):
            done = sum(message.role == "tool" for message in request.messages)
            if done == len(names):
                return "done"
            arguments = {"input": "go"} if names[done] == "noting" else {}
            call_id = f"{names[done]}-of-{os.getpid()}"
            return Message("assistant", (ToolCallPart(call_id, names[done], arguments),))

        return ScriptedModel.of(model)

    noting = Agent("noting", calling("note"), tools=[note])
    return Agent("dying", calling("look", "noting"), tools=[look, noting.as_tool()])


def blocking(effects: Path, *, stalls: bool) -> Agent:
    """Its tool blocks the event loop for as many seconds as the user says, if `stalls`."""

    @tool
    async def fetch(context: ToolContext, seconds: float) -> str:
        """Fetches."""
        with effects.open("a") as file:
            file.write(f"{context.idempotency_key}\n")
        say(blocked=True)
        if stalls:
            time.sleep(seconds)
        return "fetched"

    def model(request):
        last = request.messages[-1]
        return call("fetch", seconds=float(last.text)) if last.role == "user" else f"{os.getpid()}"

    return Agent("blocking", ScriptedModel.of(model), tools=[fetch])


def _Announce() -> Stall:  # noqa: N802 - reads as the cue that it is
    class Event(asyncio.Event):
        def set(self) -> None:
            super().set()
            say(stalled=True)

    return Stall(reached=Event())


async def run_runtime(data_dir: str, effects: str) -> None:
    async with Runtime(agent(Path(effects), stalls=True), data_dir=data_dir) as runtime:
        run = await runtime.submit("user-123", "first")
        await run.result()
        run = await runtime.submit("user-123", "stall")
        say(run_id=run.run_id)
        await run.result()


def _say_draining(record: logging.LogRecord) -> bool:
    if "drains" in record.msg:
        say(draining=True)
    return record.levelno >= logging.WARNING


async def run_worker(
    url: str, namespace: str, effects: str, block_limit: str = "30", *, make: Callable[..., Agent] = agent
) -> None:
    topology = Topology(namespace, partitions=8)
    logging.getLogger("atto.worker").addFilter(_say_draining)
    logging.getLogger("atto.worker").setLevel(logging.INFO)
    worker = Worker(
        make(Path(effects), stalls=True),
        nats=url,
        topology=topology,
        grace=5.0,
        block_limit=float(block_limit),
    )
    await worker.serve(on_ready=lambda: say(pid=os.getpid()))


if __name__ == "__main__":
    mode, *arguments = sys.argv[1:]
    modes = {
        "runtime": run_runtime,
        "worker": run_worker,
        "team": partial(run_worker, make=team),
        "dying": partial(run_worker, make=dying),
        "blocking": partial(run_worker, make=blocking),
    }
    asyncio.run(modes[mode](*arguments))
