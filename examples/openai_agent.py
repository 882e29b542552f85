"""One agent on OpenAI: `OPENAI_API_KEY=… python examples/openai_agent.py`.

OPENAI_MODEL names another model.
"""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta

from atto import Agent, ToolContext, events, tool
from atto_workers import Runtime

QUESTIONS = ("Remind me in 90 minutes to call Ann.", "What did I ask you to remember?")


@tool
def remind(what: str, minutes: int, context: ToolContext) -> str:
    """Sets a reminder.

    Args:
        what: What to be reminded of.
        minutes: In how many minutes from now.
    """
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    context.state["reminders"] = [*context.state.get("reminders", []), what]
    return f"set for {at:%H:%M} UTC"


async def main(questions: tuple[str, ...]) -> None:
    model = f"openai:{os.environ.get('OPENAI_MODEL', 'gpt-5-mini')}"
    agent = Agent("secretary", model, "You are a secretary of few words.", [remind])
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
        print((await runtime.snapshot("user-123")).state)


if __name__ == "__main__":
    asyncio.run(main(tuple(sys.argv[1:]) or QUESTIONS))
