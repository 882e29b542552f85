"""One agent on Gemini with a tool that asks the web: `GEMINI_API_KEY=… python examples/gemini_agent.py`.

The weather comes from Open-Meteo, which needs no key; WEATHER_URL and GEOCODING_URL name other servers.
"""

import asyncio
import json
import os
import sys
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from atto import Agent, ToolError, events, tool
from atto_workers import Runtime

GEOCODING = os.environ.get("GEOCODING_URL", "https://geocoding-api.open-meteo.com/v1/search")
WEATHER = os.environ.get("WEATHER_URL", "https://api.open-meteo.com/v1/forecast")
QUESTIONS = ("What is the weather in Oslo?", "And in Rome? Which of the two is warmer?")


def get(url: str, **query: Any) -> Any:
    with urlopen(f"{url}?{urlencode(query)}", timeout=10) as response:  # noqa: S310 - the addresses above
        return json.load(response)


@tool(timeout=20, read_only=True)
def current_weather(city: str) -> dict[str, Any]:
    """Tells the weather in a city now.

    Args:
        city: The name of the city, in English.
    """
    places = get(GEOCODING, name=city, count=1).get("results")
    if not places:
        raise ToolError(f"no place is called {city}: ask which one is meant")
    place = places[0]
    found = get(
        WEATHER,
        latitude=place["latitude"],
        longitude=place["longitude"],
        current="temperature_2m,wind_speed_10m",
    )
    return {"place": place["name"], **found["current"]}


async def main(questions: tuple[str, ...]) -> None:
    model = f"gemini:{os.environ.get('GEMINI_MODEL', 'gemini-3-flash-preview')}"
    agent = Agent("weather", model, "Answer briefly, with the figures that you looked up.", [current_weather])
    async with Runtime(agent) as runtime:
        for question in questions:
            print(f"\nyou    {question}\nagent  ", end="")
            async for event in runtime.run("user-123", question):
                match event:
                    case events.ToolStarted():
                        print(f"[{event.name} {event.arguments}] ", end="", flush=True)
                    case events.TextDelta():
                        print(event.text, end="", flush=True)
                    case events.StepRestarted():
                        print("\n       (once more) ", end="", flush=True)
                    case events.RunFailed():
                        sys.exit(f"\nthe run failed ({event.code}): {event.message}")
                    case _:
                        pass
            print()


if __name__ == "__main__":
    asyncio.run(main(tuple(sys.argv[1:]) or QUESTIONS))
