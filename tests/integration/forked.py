"""`forked.py URL NAMESPACE`: one `Worker`, made before two processes are forked, is served in both of them.

Then a client is opened, and used in a process that is forked meanwhile. Prints one line of JSON for each:
the error that the client met, and what became of the turns.
"""

import asyncio
import json
import os
import signal
import sys

from atto import Agent, ScriptedModel, ToolContext, tool
from atto.models import call
from atto.protocol.errors import AttoError
from atto_client import Client
from atto_workers import Topology, Worker

SESSIONS = 12


def say(**line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


@tool
async def work(context: ToolContext) -> str:
    """Works."""
    await asyncio.sleep(0.3)
    return f"{os.getpid()} {context.idempotency_key}"


def answer(request):
    last = request.messages[-1]
    return call("work") if last.role == "user" else last.content[0].content


def serve_in_child(worker: Worker) -> int:
    pid = os.fork()
    if not pid:
        try:
            asyncio.run(worker.serve())
        finally:
            os._exit(0)
    return pid


async def use_in_child(client: Client) -> str:
    """The name of the error that the client of this process raises in a forked one."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        said = "nothing"
        try:
            client.run("s", "hi").__aenter__().send(None)
        except AttoError as error:
            said = type(error).__name__
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
            said = f"unexpected {error!r}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read()


async def main(url: str, namespace: str, children: list[int]) -> None:
    async with Client(url, namespace=namespace) as client:
        say(error=await use_in_child(client))
        answers: list[str] = []
        served: set[int] = set()
        while served != set(children):  # the second one needs a while to get its share
            runs = [client.run(f"s{number}", "go").result() for number in range(SESSIONS)]
            answers += [result.text for result in await asyncio.gather(*runs)]
            served = {int(answer.split()[0]) for answer in answers}
    say(runs=len(answers), keys=len({answer.split()[1] for answer in answers}))


if __name__ == "__main__":
    url, namespace = sys.argv[1:]
    agent = Agent("forked", ScriptedModel.of(answer), tools=[work])
    worker = Worker(agent, nats=url, topology=Topology(namespace, partitions=16), grace=5.0)
    children = [serve_in_child(worker) for _ in range(2)]
    try:
        asyncio.run(main(url, namespace, children))
    finally:
        for pid in children:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)
