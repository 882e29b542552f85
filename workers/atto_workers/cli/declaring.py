"""`atto declare`."""

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated

from cyclopts import Parameter

from atto.protocol.errors import BrokerRefused, BrokerUnavailable, StoreUnavailable
from atto.stores import open_store
from atto_workers.cli.exits import Unusable
from atto_workers.cli.options import BROKER, OUTPUT, Broker, Output, Store, in_range, note
from atto_workers.topology import DUPLICATE_WINDOW, Declared, Topology

PAUSE = 1.0
"""Seconds before a cluster that was not ready is asked again."""

EVENTS_AGES = (DUPLICATE_WINDOW, 1e9)
"""Seconds. A stream that is there refuses less than the window for repeated messages that it was made with;
the broker counts in nanoseconds, of 64 bits.
"""


def declare(
    *,
    partitions: Annotated[int | None, Parameter(help="Fixed from the first time on; 64 then.")] = None,
    replicas: Annotated[int | None, Parameter(help="Copies of streams and sessions in a cluster.")] = None,
    backlog: Annotated[int | None, Parameter(help="Unfinished turns that a session may have.")] = None,
    max_turns: Annotated[
        int | None, Parameter(help="Unfinished turns in all; 0: any number.", validator=in_range(0))
    ] = None,
    events_max_age: Annotated[
        float | None,
        Parameter(help="Seconds for which runs can be replayed.", validator=in_range(*EVENTS_AGES)),
    ] = None,
    deltas_max_age: Annotated[
        float | None,
        Parameter(
            help="Seconds for which their single words are kept.", validator=in_range(1, EVENTS_AGES[1])
        ),
    ] = None,
    events_max_bytes: Annotated[
        int | None, Parameter(help="Bytes of events; 0: any number.", validator=in_range(0))
    ] = None,
    turns_max_bytes: Annotated[
        int | None, Parameter(help="Bytes of unfinished turns; 0: any number.", validator=in_range(0))
    ] = None,
    cancels_max_bytes: Annotated[
        int | None, Parameter(help="Bytes of cancellations; 0: any number.", validator=in_range(0))
    ] = None,
    dead_max_bytes: Annotated[
        int | None, Parameter(help="Bytes of dead letters; 0: any number.", validator=in_range(0))
    ] = None,
    dead_max_age: Annotated[
        float | None,
        Parameter(
            help="Seconds for which dead letters are kept; 0: for ever.",
            validator=in_range(0, EVENTS_AGES[1]),
        ),
    ] = None,
    wait: Annotated[
        float, Parameter(help="Seconds that a cluster has to become ready.", validator=in_range(0))
    ] = 0.0,
    store: Store = "nats-kv",
    broker: Broker = BROKER,
    output: Output = OUTPUT,
) -> None:
    """Makes the namespace: streams, and where sessions are kept. Safe to run again.

    What is not given stays as it is, or takes its default when it is made; so does a bound that streams of an
    older version lack.
    """
    try:
        topology = Topology(
            broker.namespace,
            partitions=partitions,
            replicas=replicas,
            backlog=backlog,
            max_turns=max_turns,
            events_max_age=events_max_age,
            deltas_max_age=deltas_max_age,
            events_max_bytes=events_max_bytes,
            turns_max_bytes=turns_max_bytes,
            cancels_max_bytes=cancels_max_bytes,
            dead_max_bytes=dead_max_bytes,
            dead_max_age=dead_max_age,
        )
    except ValueError as error:
        raise Unusable(str(error)) from error
    declared = asyncio.run(_patiently(topology, store, broker, wait))
    output.show(
        {"namespace": broker.namespace, **declared._asdict()},
        f"namespace {broker.namespace}: {declared.partitions} partitions, backlog {declared.backlog}, "
        f"replicas {declared.replicas}",
    )


async def _patiently(topology: Topology, store: str, broker: Broker, patience: float) -> Declared:
    """A cluster that has just started refuses for a while, and a database may start later."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        try:
            return await _declared(topology, store, broker)
        except (BrokerUnavailable, BrokerRefused, StoreUnavailable) as error:
            if loop.time() >= deadline:
                raise
            note(f"not yet: {error}")
        await asyncio.sleep(PAUSE)


async def _declared(topology: Topology, store: str, broker: Broker) -> Declared:
    async with AsyncExitStack() as stack:
        jetstream = await stack.enter_async_context(broker.jetstream())
        declared = await topology.declare(jetstream, renew=True)
        namespace, replicas = broker.namespace, declared.replicas
        await stack.enter_async_context(
            open_store(store, jetstream=jetstream, namespace=namespace, replicas=replicas)
        )
        return declared
