"""`stuck.py URL NAMESPACE HOW ENTRY`: a worker whose users' code does not let go.

Prints `began` once the stuck code runs, and with ENTRY `with` leaves the worker by itself then.
"""

import asyncio
import contextlib
import logging
import sys
import threading

from atto import Agent, ScriptedModel, tool
from atto.models import FinishChunk, call
from atto.protocol.messages import Origin
from atto.stores import MemoryStore
from atto_client import Client
from atto_workers import Runtime, Topology, Worker

url, namespace, how, entry = sys.argv[1:]
logging.basicConfig(level="WARNING", stream=sys.stderr)


def say(text):
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def swallow():
    say("began")
    while True:
        with contextlib.suppress(BaseException):  # as stubborn as can be
            await asyncio.Event().wait()


@tool(name="stick", timeout=None)
async def swallows() -> str:
    """Sticks."""
    await swallow()


@tool(name="stick", timeout=None)
async def in_executor() -> str:
    """Sticks."""
    await asyncio.to_thread(lambda: (say("began"), threading.Event().wait()))


@tool(name="stick", timeout=None)
def in_thread() -> str:
    """Sticks."""
    say("began")
    threading.Event().wait()


class Stuck:
    origin = Origin("test", "stuck")

    async def stream(self, request):
        await swallow()
        yield FinishChunk("stop")

    async def aclose(self):
        await swallow()


class StuckStore(MemoryStore):
    async def save(self, base, commit):
        await swallow()


async def instruction(state):
    await swallow()


tools = {"swallows": swallows, "executor": in_executor, "thread": in_thread}
inner = Agent("inner", Stuck(), description="Sticks.")
scripted = ScriptedModel.of(lambda request: call("stick") if how in tools else "done")
agent = {
    "model": lambda: Agent("a", Stuck()),
    "instruction": lambda: Agent("a", scripted, instruction),
    "agent": lambda: Agent(
        "a", ScriptedModel.of(lambda _: call("inner", input="x")), tools=[inner.as_tool()]
    ),
}.get(how, lambda: Agent("a", scripted, tools=[tools[how]] if how in tools else []))()
options = {
    "topology": Topology(namespace, partitions=4),
    "grace": 0.2,
    "store": StuckStore() if how == "store" else "nats-kv",
}


async def submit():
    async with Client(url, namespace=namespace) as client:
        await client.submit("ann", "go", run_id="r1")


async def main():
    if entry == "serve":
        await Worker(agent, nats=url, **options).serve(
            on_ready=lambda: tasks.append(asyncio.create_task(submit()))
        )
    elif entry == "worker":
        async with Worker(agent, nats=url, **options):
            await submit()
            await asyncio.to_thread(sys.stdin.readline)
    else:
        async with Runtime(agent, nats=url, topology=options.pop("topology"), worker=options) as runtime:
            await runtime.submit("ann", "go", run_id="r1")
            await asyncio.to_thread(sys.stdin.readline)
    say("left")


tasks: list[asyncio.Task[None]] = []
asyncio.run(main())
say("end")
