"""Many small worker processes: `python -m benchmarks.nursery URL NAMESPACE PARTITIONS`.

Imports everything once, then forks a worker for each that a line on standard input asks for, and answers with
their process ids. So they share the memory of what was imported, and start in no time. All are killed once
standard input ends.
"""

import asyncio
import gc
import logging
import os
import signal
import sys

from atto import Agent, ScriptedModel
from atto_workers import Topology, Worker


def main(url: str, namespace: str, partitions: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system reaps them
    logging.basicConfig(level=logging.ERROR)
    agent = Agent("idle", ScriptedModel.of(lambda _: "hi"))
    topology = Topology(namespace, partitions=int(partitions))
    gc.freeze()
    born: list[int] = []
    for line in sys.stdin:
        new = [_born(Worker(agent, nats=url, topology=topology, grace=5.0)) for _ in range(int(line))]
        born += new
        sys.stdout.write(" ".join(map(str, new)) + "\n")
        sys.stdout.flush()
    for pid in born:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _born(worker: Worker) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        asyncio.run(worker.serve())
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
