"""A good history in small, to be broken in one place at a time."""

from datetime import UTC, datetime

from atto.protocol.events import (
    ModelCompleted,
    RunCancelled,
    RunCompleted,
    RunStarted,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from atto.protocol.messages import Message, TextPart, ToolCallPart, ToolResultPart
from tests.chaos.case import Terms, make_case
from tests.chaos.checker import check
from tests.chaos.history import make_history
from tests.chaos.records import Accepted, CancelAsked, Effect, Heard, Invoked, Listening, Refused, Stored
from tests.chaos.turns import Script

AT = datetime(2026, 1, 1, tzinfo=UTC)
SESSION = "s"


def answer(text, *calls):
    return Message("assistant", (TextPart(text), *calls))


def call(nonce):
    return ToolCallPart(nonce, "count", {"nonce": nonce})


def result(nonce, content):
    return ToolResultPart(nonce, "count", content)


class Scene:
    """The lines of a session, to be broken one by one. Two turns are completed: `a`, which calls a tool, and
    `b`; `c` is cancelled, `d` is refused, and `e` is of a producer that knows no run id. Times are seconds
    from the start; `a` is heard by two listeners.
    """

    def __init__(self):
        self.lines = []
        self.faults = []
        self.messages = [
            *(Message.user(script("a", "count").text()), answer("x y ", call("n.1"))),
            *(Message("tool", (result("n.1", "n.1 1"),)), answer("z ")),
            *(Message.user(script("b").text()), answer("b ")),
            *(Message.user(script("e").text()), answer("e ")),
        ]
        self.submit(1, "a", 10, steps=("count",))
        self.submit(2, "b", 11)
        self.submit(3, "c", 12)
        self.lines.append(CancelAsked(t=3.5, label="c"))
        self.lines.append(Invoked(t=4, label="d", run="run-d", text=script("d").text()))
        self.lines.append(Refused(t=4.1, label="d", error="Overloaded"))
        self.submit(5, "e", 13, run="")
        self.lines.append(
            Effect(
                t=1.4,
                until=1.5,
                pid=1,
                key="run-a:1:n.1",
                run="run-a",
                step=1,
                call="n.1",
                nonce="n.1",
                tool="count",
            )
        )
        self.listen("l1", "a", events_of_a())
        self.listen("l2", "a", events_of_a())
        self.listen("l3", "b", spoken("b ", 2))
        self.listen("l4", "c", [RunCancelled(seq=1, time=AT)])

    def submit(self, t, label, sequence, *, run=None, steps=()):
        run = f"run-{label}" if run is None else run
        self.lines.append(Invoked(t=t, label=label, run=run, text=script(label, *steps).text()))
        self.lines.append(Accepted(t=t + 0.1, label=label, sequence=sequence))

    def listen(self, name, label, events, **resumes):
        self.lines.append(Listening(t=0, listener=name, label=label, run=f"run-{label}", **resumes))
        self.lines += [Heard(t=6 + number, listener=name, event=event) for number, event in enumerate(events)]

    def change(self, kind, changed, **where):
        """Puts `changed(line)` in the place of the lines of a kind with these values."""
        found = [line for line in self.lines if isinstance(line, kind) and fits(line, where)]
        assert found
        self.lines = [changed(line) if line in found else line for line in self.lines]

    def drop(self, kind, **where):
        self.lines = [line for line in self.lines if not (isinstance(line, kind) and fits(line, where))]

    def found(self):
        """The promises that were broken."""
        state = {"count": 1, "last": "n.1"}
        version = sum(message.role == "user" for message in self.messages)
        stored = Stored(t=99, version=version, messages=tuple(self.messages), state=state)
        return self.found_with(stored)

    def found_with(self, stored):
        case = make_case(make_history(SESSION, [*self.lines, stored]), Terms(self.faults))
        return {violation.promise for violation in check(case)}


def fits(line, where):
    return all(getattr(line, name) == value for name, value in where.items())


def script(label, *tools):
    return Script(label, tuple((tool,) for tool in tools))


def events_of_a():
    return [
        RunStarted(seq=1, time=AT, agent="w1"),
        TextDelta(seq=2, step=1, text="x "),
        TextDelta(seq=3, step=1, text="y "),
        ModelCompleted(seq=4, step=1, message=answer("x y ", call("n.1"))),
        ToolStarted(seq=5, step=1, call_id="n.1", name="count"),
        ToolCompleted(seq=6, step=1, call_id="n.1", name="count", content="n.1 1"),
        TextDelta(seq=7, step=2, text="z "),
        ModelCompleted(seq=8, step=2, message=answer("z ")),
        RunCompleted(seq=9, time=AT, message=answer("z "), version=1),
    ]


def spoken(text, version):
    return [
        RunStarted(seq=1, time=AT, agent="w1"),
        TextDelta(seq=2, step=1, text=text),
        ModelCompleted(seq=3, step=1, message=answer(text)),
        RunCompleted(seq=4, time=AT, message=answer(text), version=version),
    ]


def end_of(label):
    return {"a": "l1", "b": "l3", "c": "l4"}[label]
