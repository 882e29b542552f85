"""What a listener is left with: the rules by which what it heard was made void, applied."""

from msgspec import Struct, field

from atto.protocol.events import (
    AnyEvent,
    ModelCompleted,
    RunStarted,
    StepRestarted,
    TerminalEvent,
    TextDelta,
    ToolCompleted,
    is_terminal,
)
from atto.protocol.messages import Message, ToolResultPart
from tests.chaos.history import Listener


class Standing(Struct):
    """The run as a listener knows it. `attempts`: beginnings that it heard of. `gaps`: numbers that did not
    follow one another. `misquotes`: steps whose pieces are not their message.
    """

    texts: dict[int, str] = field(default_factory=dict)
    models: dict[int, Message] = field(default_factory=dict)
    results: dict[int, dict[str, ToolResultPart]] = field(default_factory=dict)
    attempts: int = 0
    terminal: TerminalEvent | None = None
    gaps: list[str] = field(default_factory=list)
    misquotes: list[str] = field(default_factory=list)

    def messages(self) -> list[Message]:
        """What the run adds to the history after the user's message, in so far as it was heard."""
        messages: list[Message] = []
        for step in sorted(self.models):
            model = self.models[step]
            messages.append(model)
            if model.tool_calls:
                results = self.results.get(step, {})
                parts = tuple(results[call.id] for call in model.tool_calls if call.id in results)
                messages.append(Message("tool", parts))
        return messages


def standing(listener: Listener, listeners: dict[str, Listener]) -> Standing | None:
    """None for one that resumes after what nobody has written down."""
    events = _numbered(listener, listeners)
    if events is None:
        return None
    standing = Standing()
    valid, standing.gaps = events
    for event in valid:
        _apply(standing, event)
    return standing


def _numbered(listener: Listener, listeners: dict[str, Listener]) -> tuple[list[AnyEvent], list[str]] | None:
    """The events that stand: a number that goes back makes void all from that number on."""
    events: list[AnyEvent] = []
    if listener.after:
        before = listeners.get(listener.follows)
        known = None if before is None else _numbered(before, listeners)
        if known is None or len(known[0]) < listener.after:
            return None
        events = known[0][: listener.after]
    problems: list[str] = []
    for _, event in listener.heard:
        if event.seq > len(events) + 1:
            problems.append(f"event {event.seq} came after event {len(events)}")
            break
        if events and is_terminal(events[-1]):
            problems.append(f"event {event.seq} came after the terminal event")
        del events[event.seq - 1 :]
        events.append(event)
    return events, problems


def _apply(standing: Standing, event: AnyEvent) -> None:
    match event:
        case RunStarted():
            standing.attempts += 1
        case TextDelta():
            standing.texts[event.step] = standing.texts.get(event.step, "") + event.text
        case StepRestarted():
            for said in (standing.texts, standing.models, standing.results):
                for step in [step for step in said if step >= event.step]:
                    del said[step]
        case ModelCompleted():
            standing.models[event.step] = event.message
            said = standing.texts.get(event.step, "")
            if said != event.message.text:
                standing.misquotes.append(
                    f"the deltas of step {event.step} are {said!r}, the message is {event.message.text!r}"
                )
        case ToolCompleted():
            part = ToolResultPart(event.call_id, event.name, event.content, event.is_error)
            standing.results.setdefault(event.step, {})[event.call_id] = part
        case _ if is_terminal(event):
            standing.terminal = event
        case _:
            pass
