"""The judge, judged: it finds nothing in a good history, and each kind of broken promise in a broken one."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from atto.protocol.events import RunCompleted, RunFailed, StepRestarted, TextDelta
from atto.protocol.messages import Message
from tests.chaos.checker import CHECKS
from tests.chaos.records import Accepted, Broke, CancelAsked, Effect, Heard, Invoked, Stored
from tests.chaos.scene import AT, Scene, answer, end_of, events_of_a, result, script, spoken


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
