"""The agent loop of the floors: the scripted model and the tool, and nothing around them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from benchmarks.weather import work
from benchmarks.weather.work import Entry, Pace


async def converse(history: list[Any], text: str, pace: Pace, say: Callable[[str], Awaitable[None]]) -> str:
    """Adds a turn's messages to the history; `say` gets the deltas. The whole answer."""
    history.append({"role": "user", "content": text})
    while True:
        said: list[str] = []
        call: dict[str, Any] | None = None
        async for piece in _model(history, pace):
            if isinstance(piece, str):
                said.append(piece)
                await say(piece)
            else:
                call = piece
        if call is None:
            answer = "".join(said)
            history.append({"role": "assistant", "content": answer})
            return answer
        history.append({"role": "assistant", "call": call})
        history.append({"role": "tool", "content": await _get_weather(**call["arguments"])})


async def _model(history: list[Any], pace: Pace) -> AsyncIterator[str | dict[str, Any]]:
    if history[-1]["role"] == "user":
        _, turn = work.check(history[-1]["content"], len(history), is_answering=False)
        await asyncio.sleep(pace.first)
        yield {"id": f"call_{len(history)}", "name": "get_weather", "arguments": {"city": work.city(turn)}}
        return
    session, turn = work.check(history[-3]["content"], len(history), is_answering=True)
    await asyncio.sleep(pace.first)
    for delta in work.deltas(session, turn):
        await asyncio.sleep(pace.delta)
        yield delta


async def _get_weather(city: str) -> str:
    return work.report(city)


def entries(history: list[Any]) -> list[Entry]:
    """The history, to be compared."""
    return [
        Entry("call", message["call"]["arguments"]["city"])
        if "call" in message
        else Entry(message["role"], message["content"])
        for message in history
    ]
