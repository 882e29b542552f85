"""A turn of a conversation about the weather: four messages, about 1 KB, and a small change of the state."""

from atto.protocol.events import StateChange
from atto.protocol.ids import new_run_id
from atto.protocol.messages import Message, Origin, TextPart, ToolCallPart, ToolResultPart
from atto.protocol.sessions import Commit

CITIES = ("Oslo", "Rome", "Lima", "Bern", "Riga", "Doha")  # of one length, so that all turns are


def weather_turn(number: int) -> Commit:
    """Turn `number` of a session; all have the same size."""
    city = CITIES[number % len(CITIES)]
    call = ToolCallPart(id=f"call_{number:024}", name="get_weather", arguments={"city": city, "days": 2})
    model = Origin(provider="openai", model="gpt-4.1-mini")
    return Commit(
        run_id=new_run_id(),
        messages=(
            Message.user(f"What will the weather be like in {city} tomorrow? Shall I take an umbrella?"),
            Message("assistant", (call,), model),
            Message("tool", (ToolResultPart(call.id, call.name, _report(city)),)),
            Message("assistant", (TextPart(_answer(city)),), model),
        ),
        change=StateChange(set={"last_city": city, "questions": 10_000 + number}),
    )


def _report(city: str) -> str:
    return (
        f'{{"city": "{city}", "today": {{"sky": "clear", "low": 11, "high": 19, "rain_mm": 0.0}}, '
        '"tomorrow": {"sky": "showers", "low": 9, "high": 14, "rain_mm": 6.5, "wind_kmh": 24}}'
    )


def _answer(city: str) -> str:
    return (
        f"Yes, take one: in {city} it will rain tomorrow, about 6.5 mm, mostly in the afternoon, with 9 to "
        "14 degrees and a fresh wind. Today stays dry and clear, with up to 19 degrees."
    )
