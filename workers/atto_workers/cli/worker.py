"""`atto worker`."""

import asyncio
import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cyclopts import Parameter

from atto_workers.cli.exits import Unusable
from atto_workers.cli.loading import load_agent, load_policies
from atto_workers.cli.options import BROKER, OUTPUT, Agent, Broker, Output, Store
from atto_workers.logs import configure_logs
from atto_workers.worker import Worker

PORTS = 65_535

LogFormat = Literal["console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What makes a worker, in a form that travels to another process."""

    agent: str
    broker: Broker = field(default_factory=Broker)
    models: str | None = None
    store: str = "nats-kv"
    concurrency: int = 256
    grace: float = 30.0
    log_format: LogFormat = "console"
    log_level: LogLevel = "info"
    log_quotes: bool = False
    output: Output = field(default_factory=Output)

    def make(self) -> Worker:
        """The worker, not yet entered, with logs configured. Raises `Unusable` if there is no such agent,
        or no such policy.
        """
        configure_logs(level=self.log_level, as_json=self.log_format == "json", quotes=self.log_quotes)
        return Worker(
            load_agent(self.agent),
            models=None if self.models is None else load_policies(self.models),
            nats=self.broker.nats,
            namespace=self.broker.namespace,
            store=self.store,
            concurrency=self.concurrency,
            grace=self.grace,
            **self.broker.options(),
        )


def worker(
    agent: Agent,
    *,
    models: Annotated[
        str | None, Parameter(help="Limits, retries, time-outs of models: a variable, as module:variable.")
    ] = None,
    broker: Broker = BROKER,
    store: Store = "nats-kv",
    concurrency: Annotated[int, Parameter(help="Turns that run at one time, in each process.")] = 256,
    processes: Annotated[int, Parameter(help="Worker processes; one that dies is started again.")] = 1,
    grace: Annotated[float, Parameter(help="Seconds that running turns have when it stops.")] = 30.0,
    health_port: Annotated[int | None, Parameter(help="Where /healthz and /readyz are answered.")] = None,
    health_host: Annotated[str, Parameter(help="On which address; 0.0.0.0 in a container.")] = "127.0.0.1",
    log_format: LogFormat = "console",
    log_level: LogLevel = "info",
    output: Output = OUTPUT,
) -> int:
    """Runs turns of AGENT (`module:variable`) until SIGTERM or SIGINT, then drains."""
    for name, value in (("processes", processes), ("concurrency", concurrency)):
        if value < 1:
            raise Unusable(f"{name} must be at least 1, not {value}")
    if not 0 <= grace < math.inf:
        raise Unusable(f"grace must be 0 seconds or more, not {grace:g}")
    if health_port is not None and not 0 <= health_port <= PORTS:
        raise Unusable(f"health port {health_port}: ports are 0 (any that is free) to {PORTS}")
    if not health_host:  # to the system it is every address
        raise Unusable("the health host is empty: name an address, or 0.0.0.0 for all")
    settings = WorkerSettings(
        agent=agent,
        models=models,
        broker=broker,
        store=store,
        concurrency=concurrency,
        grace=grace,
        log_format=log_format,
        log_level=log_level,
        output=output,
    )
    if processes == 1:
        _serve(settings, health_port, health_host)
        return 0
    from atto_workers.cli.fleet import serve_fleet  # noqa: PLC0415 - not needed by one process

    configure_logs(level=log_level, as_json=log_format == "json")
    return asyncio.run(serve_fleet(settings, processes, health_port, health_host))


def _serve(settings: WorkerSettings, health_port: int | None, health_host: str) -> None:
    from atto_workers.cli.health import health_answered  # noqa: PLC0415 - loads an HTTP server

    made = settings.make()

    async def alive() -> str | None:
        return made.broken()

    async def work() -> None:
        async with health_answered(health_host, health_port, made.unready, alive=alive):
            await made.serve()

    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(work())


def fast_loop() -> "type[asyncio.AbstractEventLoop] | None":
    """uvloop's, if it is installed."""
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        return None
    return uvloop.Loop
