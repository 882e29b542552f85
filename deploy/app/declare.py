"""Declares the namespace, as its admin: workers have no right to create streams. Safe to run again.

ATTO_REPLICAS: copies of each stream and of the sessions' bucket (1). ATTO_BACKLOG, ATTO_MAX_TURNS: as of
`Topology`; what is not given stays as it is. A cluster that has just started is waited for, for a minute.
"""

import asyncio
import os
import signal
import sys

from broker import addresses, login, namespace

from atto.broker.connection import connected
from atto.broker.jetstream import JetStream
from atto.protocol.errors import BrokerRefused, BrokerUnavailable, TopologyMismatch
from atto.stores import NatsKvStore
from atto_workers import Topology

PATIENCE = 60.0
PAUSE = 1.0


def number(variable: str) -> int | None:
    """None if it is not set."""
    given = os.environ.get(variable)
    return int(given) if given else None


async def declare() -> None:
    """Raises `BrokerUnavailable`, `BrokerRefused`, `TopologyMismatch`."""
    topology = Topology(
        namespace(),
        replicas=number("ATTO_REPLICAS"),
        backlog=number("ATTO_BACKLOG"),
        max_turns=number("ATTO_MAX_TURNS"),
    )
    async with (
        connected(addresses(), name="declare", on_reconnect=lambda: None, **login()) as connection,
        JetStream(connection) as jetstream,
    ):
        declared = await topology.declare(jetstream)
        await NatsKvStore(jetstream, namespace=namespace(), replicas=declared.replicas).declare()
    print(f"namespace {namespace()}: {declared}", flush=True)


async def main() -> int:
    """The exit code. Tries again while the cluster has no leader yet."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE
    while True:
        try:
            await declare()
        except TopologyMismatch as error:
            print(error, flush=True)
            return 1
        except (BrokerUnavailable, BrokerRefused) as error:
            print(f"not yet: {error}", flush=True)
            if loop.time() > deadline:
                return 1
        else:
            return 0
        await asyncio.sleep(PAUSE)


if __name__ == "__main__":
    # Process 1 of a container has no default for signals: without this one it could only be killed.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(asyncio.run(main()))
