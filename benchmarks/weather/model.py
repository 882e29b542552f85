"""The scripted model, as a `Model` of atto: the same words as the floors' at the same pace."""

import asyncio
from collections.abc import AsyncGenerator

from atto.models import Chunk, FinishChunk, ModelRequest, PartDone, TextChunk, ToolCallChunk
from atto.protocol.messages import Origin
from benchmarks.weather import work
from benchmarks.weather.work import Pace

_CALLS = FinishChunk("tool_calls")
_STOP = FinishChunk("stop")


class WeatherModel:
    """Checks in every call that it was handed the whole history of the session."""

    origin = Origin("scripted", "weather")

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Chunk, None]:
        messages = request.messages
        if messages[-1].role == "user":
            _, turn = work.check(messages[-1].text, len(messages), is_answering=False)
            await asyncio.sleep(self._pace.first)
            yield ToolCallChunk(0, f"call_{len(messages)}", "get_weather", f'{{"city": "{work.city(turn)}"}}')
            yield PartDone(None, 0)
            yield _CALLS
            return
        session, turn = work.check(messages[-3].text, len(messages), is_answering=True)
        await asyncio.sleep(self._pace.first)
        for delta in work.deltas(session, turn):
            await asyncio.sleep(self._pace.delta)
            yield TextChunk(delta)
        yield _STOP
