"""The workload as atto's users would write it: an agent, and a caller."""

import contextlib
from collections.abc import AsyncGenerator, Iterable
from typing import Any, Self

from atto import Agent, tool
from atto.protocol.messages import Message, ToolCallPart, ToolResultPart
from atto.stores import SessionStore
from atto_client import Client, RunFailed, events
from atto_workers import Worker
from atto_workers.gateway import LimitPolicy, ModelPolicy
from benchmarks.weather import work
from benchmarks.weather.caller import Heard
from benchmarks.weather.model import WeatherModel
from benchmarks.weather.work import Entry, Pace

CONCURRENCY = 1024
"""Turns and model calls at one time: more than the workload ever has in flight."""


async def get_weather(city: str) -> str:
    """The weather in a city."""
    return work.report(city)


def agent(pace: Pace, *, effects: bool = False) -> Agent:
    weather = tool(read_only=not effects)(get_weather)
    return Agent("weather", WeatherModel(pace), instruction="Answer.", tools=[weather])


@contextlib.asynccontextmanager
async def worker(
    url: str,
    namespace: str,
    store: str,
    pace: Pace,
    *,
    idle_limit: float | None = None,
    effects: bool = False,
) -> AsyncGenerator[Worker]:
    models = ModelPolicy(limits=LimitPolicy(concurrency=CONCURRENCY))
    options: dict[str, Any] = {"concurrency": CONCURRENCY, "models": models, "grace": 5.0}
    if idle_limit is not None:
        options["idle_limit"] = idle_limit
    async with Worker(
        agent(pace, effects=effects), nats=url, namespace=namespace, store=store, **options
    ) as running:
        yield running


class AttoCaller:
    """`async with AttoCaller(…)`, then `turn`."""

    def __init__(self, url: str, namespace: str) -> None:
        self._client = Client(url, namespace=namespace)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.__aexit__(None, None, None)

    async def turn(self, session: str, text: str, heard: Heard) -> str:
        """The answer. Tells `heard` of every event, and of the text that it brings."""
        async for event in self._client.run(session, text):
            match event:
                case events.TextDelta():
                    heard(event.text)
                case events.RunCompleted():
                    return event.text
                case events.RunFailed() | events.RunCancelled():
                    raise RunFailed(str(event), run_id="", reason="", retryable=False)
                case _:
                    heard("")
        raise RunFailed("no terminal event", run_id="", reason="", retryable=False)


async def history(store: SessionStore, session: str) -> list[Entry]:
    """What is committed."""
    snapshot = await store.load(session)
    return [] if snapshot is None else list(_entries(snapshot.messages))


def _entries(messages: Iterable[Message]) -> Iterable[Entry]:
    for message in messages:
        match message.content:
            case (ToolCallPart(arguments=arguments),):
                yield Entry("call", str(arguments["city"]))
            case (ToolResultPart(content=content),):
                yield Entry("tool", str(content))
            case _:
                yield Entry(message.role, message.text)
