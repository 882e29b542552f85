"""The events of a run, as people read them in a terminal."""

from atto.protocol.events import (
    AgentStarted,
    AnyEvent,
    ReasoningDelta,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunSuspended,
    StepRestarted,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from atto_workers.cli.console import Terminal
from atto_workers.terminal import shown, shown_text

_ARGUMENTS_SHOWN = 200
"""Characters of a tool call's arguments."""


class Transcript:
    """Prints events as they come. Text as it streams; all else on lines of its own, with who says it."""

    def __init__(self, console: Terminal | None = None) -> None:
        self._console = console or Terminal(soft_wrap=True)
        self._speaker: str | None = None
        self._names: dict[str, str] = {}
        self._in_line = False

    def show(self, event: AnyEvent) -> None:
        """The event, if it is one for people."""
        speaker = self._names.get(event.path, "")
        match event:
            case TextDelta() | ReasoningDelta():
                self._say(event.text, speaker, "dim italic" if isinstance(event, ReasoningDelta) else None)
            case AgentStarted():
                above = self._names.get(event.path.rpartition("/")[0], "")
                self._names[event.path] = f"{above}{event.agent}> "
            case RunCompleted():
                self._end_line()
            case _:
                self._show_note(event, speaker)

    def _show_note(self, event: AnyEvent, speaker: str) -> None:
        match event:
            case ToolStarted():
                self._note(f"-> {event.name}({shortened(event.arguments)})", speaker, "cyan")
            case ToolCompleted():
                failed = f" failed: {shortened(event.content)}" if event.is_error else ""
                self._note(f"<- {event.name}{failed}", speaker, "cyan")
            case StepRestarted():
                self._note(
                    f"(once more: {event.reason}; what was said of step {event.step} is void)", speaker
                )
            case RunInterrupted():
                self._note(f"(the run goes on in another worker: {event.reason})", speaker)
            case RunFailed():
                self._note(f"the run failed ({event.code}): {event.message}", speaker, "red")
            case RunCancelled():
                self._note("the run was cancelled", speaker, "yellow")
            case RunSuspended():
                self._note(f"the run waits: {', '.join(wait.ask for wait in event.waits)}", speaker, "yellow")
            case _:
                pass

    def _say(self, text: str, speaker: str, style: str | None) -> None:
        if not text:
            return
        if speaker != self._speaker:
            self._end_line()
            self._speaker = speaker
        if not self._in_line and speaker:
            self._console.print(shown(speaker), end="", style="magenta")
        self._console.print(shown_text(text), end="", style=style)
        self._in_line = not text.endswith("\n")

    def _note(self, text: str, speaker: str, style: str = "yellow") -> None:
        self._end_line()
        self._console.print(shown(f"{speaker}{text}"), style=style)

    def _end_line(self) -> None:
        if self._in_line:
            self._console.print()
        self._in_line = False


def shortened(value: object) -> str:
    """As text, cut after 200 characters."""
    text = str(value)
    return text if len(text) <= _ARGUMENTS_SHOWN else f"{text[:_ARGUMENTS_SHOWN]}…"
