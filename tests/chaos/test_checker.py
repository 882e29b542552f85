"""The judge, judged: it finds nothing in a good history, and each kind of broken promise in a broken one."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from atto.protocol.events import (
    ModelCompleted,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStarted,
    StepRestarted,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from atto.protocol.messages import Message, TextPart, ToolCallPart, ToolResultPart
from tests.chaos.checker import CHECKS, check, make_case
from tests.chaos.history import make_history
from tests.chaos.records import (
    Accepted,
    Broke,
    CancelAsked,
    Effect,
    Heard,
    Invoked,
    Listening,
    Refused,
    Stored,
)
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
        self.messages = [
            *(Message.user(script("a", "count").text()), answer("x y ", call("n1"))),
            *(Message("tool", (result("n1", "n1 1"),)), answer("z ")),
            *(Message.user(script("b").text()), answer("b ")),
            *(Message.user(script("e").text()), answer("e ")),
        ]
        self.submit(1, "a", 10, steps=("count",))
        self.submit(2, "b", 11)
        self.submit(3, "c", 12)
        self.lines.append(CancelAsked(t=3.5, label="c"))
        self.lines.append(Invoked(t=4, label="d", run="run-d", text=script("d").text()))
        self.lines.append(Refused(t=4.1, label="d", error="SessionBacklogFull"))
        self.submit(5, "e", 13, run="")
        self.lines.append(
            Effect(t=1.4, until=1.5, pid=1, key="run-a:1:n1", run="run-a", step=1, call="n1", nonce="n1")
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
        """The names of the checks that found something."""
        state = {"count": 1, "last": "n1"}
        version = sum(message.role == "user" for message in self.messages)
        stored = Stored(t=99, version=version, messages=tuple(self.messages), state=state)
        return self.found_with(stored)

    def found_with(self, stored):
        case = make_case(make_history(SESSION, [*self.lines, stored]))
        return {violation.check for violation in check(case)}


def fits(line, where):
    return all(getattr(line, name) == value for name, value in where.items())


def script(label, *tools):
    return Script(label, tuple((tool,) for tool in tools))


def events_of_a():
    return [
        RunStarted(seq=1, time=AT, agent="w1"),
        TextDelta(seq=2, step=1, text="x "),
        TextDelta(seq=3, step=1, text="y "),
        ModelCompleted(seq=4, step=1, message=answer("x y ", call("n1"))),
        ToolStarted(seq=5, step=1, call=call("n1")),
        ToolCompleted(seq=6, step=1, call_id="n1", name="count", content="n1 1"),
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


@pytest.fixture
def scene():
    return Scene()


def test_a_good_history_passes(scene):
    assert scene.found() == set()


def test_every_check_is_tried_here():
    source = Path(__file__).read_text()
    assert [judge.__name__ for judge in CHECKS if f'"{judge.__name__}"' not in source] == []


def test_what_a_restart_makes_void_does_not_count(scene):
    events = spoken("b ", 2)
    void = [events[0], TextDelta(seq=2, step=1, text="void "), StepRestarted(seq=3, step=1, reason="")]
    heard = [*void, *(replace(event, seq=event.seq + 2) for event in events[1:])]
    scene.listen("again", "b", heard)
    scene.listen("numbers go back", "b", [*void[:2], *events])
    assert scene.found() == set()


def test_a_listener_that_resumes_is_judged_by_all_that_was_heard(scene):
    scene.listen("resumed", "a", events_of_a()[3:], after=3, follows="l1")
    assert scene.found() == set()
    scene.listen("after nobody knows what", "a", events_of_a()[3:], after=3, follows="lost")
    assert scene.found() == set()
    scene.listen("hole", "a", events_of_a()[4:], after=3, follows="l1")
    assert scene.found() == {"listeners_heard_what_was_committed"}


def test_a_turn_without_an_outcome_is_found(scene):
    scene.drop(Heard, listener=end_of("b"))
    assert scene.found() == {"no_accepted_turn_is_lost"}


def test_a_turn_without_a_run_id_that_is_not_in_the_history_is_found(scene):
    del scene.messages[-2:]
    assert scene.found() == {"no_accepted_turn_is_lost"}


def test_a_turn_that_may_not_have_been_accepted_may_be_lost(scene):
    scene.drop(Heard, listener=end_of("b"))
    scene.drop(Accepted, label="b")
    assert scene.found() == set()


@pytest.mark.parametrize(
    "other",
    [
        RunCompleted(seq=9, time=AT, message=answer("z "), version=2),
        RunFailed(seq=9, time=AT, code="internal", message="", retryable=False),
    ],
)
def test_two_outcomes_of_a_run_are_found(scene, other):
    scene.change(
        Heard,
        lambda line: replace(line, event=other) if isinstance(line.event, RunCompleted) else line,
        listener="l2",
    )
    assert "a_run_has_one_outcome" in scene.found()


def test_an_outcome_that_the_turn_cannot_have_is_found(scene):
    scene.drop(CancelAsked)
    assert scene.found() == {"a_run_has_one_outcome"}


def test_a_second_commit_is_found(scene):
    scene.messages[4:4] = scene.messages[:4]
    assert "a_run_is_committed_once" in scene.found()


def test_a_commit_of_a_cancelled_run_is_found(scene):
    scene.messages += [Message.user(script("c").text()), answer("c ")]
    assert scene.found() >= {"a_run_is_committed_once"}


def test_a_commit_of_a_refused_turn_is_found(scene):
    scene.messages += [Message.user(script("d").text()), answer("d ")]
    assert scene.found() >= {"a_run_is_committed_once"}


def test_a_completed_run_that_is_not_in_the_history_is_found(scene):
    del scene.messages[4:6]
    assert scene.found() >= {"a_run_is_committed_once"}


def test_another_order_than_that_of_the_stream_is_found(scene):
    scene.change(Accepted, lambda line: replace(line, sequence=14), label="b")
    assert scene.found() == {"commits_are_in_the_order_of_acceptance"}


def test_another_order_than_that_of_the_callers_is_found(scene):
    scene.change(Accepted, lambda line: replace(line, sequence=0, t=0.7), label="b")
    scene.change(Invoked, lambda line: replace(line, t=0.6), label="b")
    assert scene.found() == {"commits_are_in_the_order_of_acceptance"}


def test_turns_that_were_submitted_at_the_same_time_may_come_in_either_order(scene):
    scene.change(Accepted, lambda line: replace(line, sequence=0, t=1.3), label="b")
    scene.change(Invoked, lambda line: replace(line, t=0.6), label="b")
    assert scene.found() == set()


def test_a_version_that_is_not_the_number_of_commits_is_found(scene):
    stored = Stored(t=99, version=4, messages=tuple(scene.messages), state={"count": 1, "last": "n1"})
    assert scene.found_with(stored) == {"versions_count_commits"}


def test_a_history_with_a_hole_is_found(scene):
    del scene.messages[2]
    assert "histories_are_whole" in scene.found()


def test_a_call_without_its_own_result_is_found(scene):
    scene.messages[2] = Message("tool", (result("n2", "n2 1"),))
    assert "histories_are_whole" in scene.found()


def test_deltas_that_are_not_the_message_are_found(scene):
    scene.change(
        Heard,
        lambda line: replace(line, event=TextDelta(seq=2, step=1, text="other ")) if line.t == 7 else line,
        listener="l3",
    )
    assert scene.found() == {"listeners_heard_what_was_committed"}


def test_void_deltas_that_nobody_voided_are_found(scene):
    events = spoken("b ", 2)
    void = [events[0], TextDelta(seq=2, step=1, text="void ")]
    scene.listen("again", "b", [*void, *(replace(event, seq=event.seq + 1) for event in events[1:])])
    assert scene.found() == {"listeners_heard_what_was_committed"}


def test_an_answer_that_was_not_committed_is_found(scene):
    scene.messages[5] = answer("other ")
    assert scene.found() == {"listeners_heard_what_was_committed"}


def test_a_listener_that_broke_is_found(scene):
    scene.lines.append(Broke(t=9, listener="l3", error="EventsMissing"))
    assert scene.found() == {"listeners_heard_what_was_committed"}


def test_a_second_key_of_a_call_is_found(scene):
    [effect] = [line for line in scene.lines if isinstance(line, Effect)]
    scene.lines.append(effect)  # once more under the same key: at least once is what is promised
    assert scene.found() == set()
    scene.lines.append(replace(effect, key="run-a:2:n1"))
    assert scene.found() == {"effects_are_keyed_once"}


def test_a_committed_call_without_an_effect_is_found(scene):
    scene.drop(Effect)
    assert scene.found() == {"effects_are_keyed_once"}


def test_a_state_that_is_not_what_the_tools_made_it_is_found(scene):
    stored = Stored(t=99, version=3, messages=tuple(scene.messages), state={"count": 2, "last": "n1"})
    assert scene.found_with(stored) == {"state_is_what_the_tools_made_it"}


def test_a_count_that_was_lost_is_found(scene):
    scene.messages[2] = Message("tool", (result("n1", "n1 0"),))
    assert "state_is_what_the_tools_made_it" in scene.found()
