"""`atto worker`."""

import asyncio
import importlib
import sys
from contextlib import AsyncExitStack
from typing import Literal

from atto.agents import Agent
from atto_workers.cli.options import BROKER, Broker
from atto_workers.health import health_server
from atto_workers.logs import configure_logs
from atto_workers.worker import Worker


def worker(
    agent: str,
    *,
    broker: Broker = BROKER,
    store: str = "nats-kv",
    concurrency: int = 256,
    grace: float = 30.0,
    health_port: int | None = None,
    log_format: Literal["console", "json"] = "console",
    log_level: Literal["debug", "info", "warning", "error"] = "info",
) -> None:
    """Runs turns of AGENT (`module:variable`) until SIGTERM or SIGINT, then drains."""
    configure_logs(level=log_level, as_json=log_format == "json")
    made = Worker(
        _loaded(agent),
        nats=broker.nats,
        namespace=broker.namespace,
        store=store,
        concurrency=concurrency,
        grace=grace,
        **broker.options(),
    )

    async def work() -> None:
        async with AsyncExitStack() as stack:
            if health_port is not None:
                await stack.enter_async_context(health_server(health_port, made.unready))
            await made.serve()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work())


def _loaded(name: str) -> Agent:
    """Raises `ValueError` for what names no agent."""
    module, _, variable = name.partition(":")
    sys.path.insert(0, "")
    try:
        agent = getattr(importlib.import_module(module), variable)
    except (ModuleNotFoundError, AttributeError, ValueError) as error:
        raise ValueError(f"cannot load {name!r}: {error}; write it as module:variable") from error
    if not isinstance(agent, Agent):
        raise ValueError(f"{name!r} is no Agent but a {type(agent).__name__}")  # noqa: TRY004 - not our caller's
    return agent


def _loop_factory() -> "type[asyncio.AbstractEventLoop] | None":
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ModuleNotFoundError:
        return None
    return uvloop.Loop
