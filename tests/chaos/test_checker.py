"""The judge, judged: it finds nothing in a good history, and each kind of broken promise in a broken one."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from atto.protocol.events import RunCompleted, RunFailed, RunStarted, StepRestarted, TextDelta
from atto.protocol.messages import Message
from tests.chaos.checker import CHECKS, PROMISES, name_of
from tests.chaos.records import (
    Accepted,
    Broke,
    CancelAsked,
    CancelTaken,
    Effect,
    Fault,
    Heard,
    Invoked,
    Raised,
    Read,
    Refused,
    Stored,
)
from tests.chaos.scene import AT, Scene, answer, end_of, events_of_a, result, script, spoken


@pytest.fixture
def scene():
    return Scene()


def test_a_good_history_passes(scene):
    assert scene.found() == set()


def test_every_check_is_tried_here():
    source = Path(__file__).read_text()
    assert [name for judge in CHECKS if f'"{(name := name_of(judge))}"' not in source] == []


def test_every_promise_is_in_words():
    assert all(words.endswith(".") for words in PROMISES.values())


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
    assert scene.found() == {"events-in-sequence"}


def test_a_turn_without_an_outcome_is_found(scene):
    scene.drop(Heard, listener=end_of("b"))
    assert scene.found() == {"accepted-turn-ends"}


def test_a_turn_without_a_run_id_that_is_not_in_the_history_is_found(scene):
    del scene.messages[-2:]
    assert scene.found() == {"accepted-turn-ends"}


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
    assert "one-terminal-event" in scene.found()


def test_an_outcome_that_the_turn_cannot_have_is_found(scene):
    scene.drop(CancelAsked)
    assert scene.found() == {"outcome-has-a-cause"}


def test_a_second_commit_is_found(scene):
    scene.messages[4:4] = scene.messages[:4]
    assert "committed-once" in scene.found()


def test_a_commit_of_a_cancelled_run_is_found(scene):
    scene.messages += [Message.user(script("c").text()), answer("c ")]
    assert scene.found() >= {"completed-is-committed"}


def test_a_commit_of_a_refused_turn_is_found(scene):
    scene.messages += [Message.user(script("d").text()), answer("d ")]
    assert scene.found() >= {"explicit-refusal"}


def test_a_completed_run_that_is_not_in_the_history_is_found(scene):
    del scene.messages[4:6]
    assert scene.found() >= {"completed-is-committed"}


def test_another_order_than_that_of_the_stream_is_found(scene):
    scene.change(Accepted, lambda line: replace(line, sequence=14), label="b")
    assert scene.found() == {"session-order"}


def test_another_order_than_that_of_the_callers_is_found(scene):
    scene.change(Accepted, lambda line: replace(line, sequence=0, t=0.7), label="b")
    scene.change(Invoked, lambda line: replace(line, t=0.6), label="b")
    assert scene.found() == {"session-order"}


def test_turns_that_were_submitted_at_the_same_time_may_come_in_either_order(scene):
    scene.change(Accepted, lambda line: replace(line, sequence=0, t=1.3), label="b")
    scene.change(Invoked, lambda line: replace(line, t=0.6), label="b")
    assert scene.found() == set()


def test_a_version_that_is_not_the_number_of_commits_is_found(scene):
    stored = Stored(t=99, version=4, messages=tuple(scene.messages), state={"count": 1, "last": "n.1"})
    assert scene.found_with(stored) == {"version-is-place"}


def test_a_history_with_a_hole_is_found(scene):
    del scene.messages[2]
    assert "history-is-whole" in scene.found()


def test_a_call_without_its_own_result_is_found(scene):
    scene.messages[2] = Message("tool", (result("n.2", "n.2 1"),))
    assert "history-is-whole" in scene.found()


def test_deltas_that_are_not_the_message_are_found(scene):
    scene.change(
        Heard,
        lambda line: replace(line, event=TextDelta(seq=2, step=1, text="other ")) if line.t == 7 else line,
        listener="l3",
    )
    assert scene.found() == {"deltas-equal-message"}


def test_void_deltas_that_nobody_voided_are_found(scene):
    events = spoken("b ", 2)
    void = [events[0], TextDelta(seq=2, step=1, text="void ")]
    scene.listen("again", "b", [*void, *(replace(event, seq=event.seq + 1) for event in events[1:])])
    assert scene.found() == {"deltas-equal-message"}


def test_an_answer_that_was_not_committed_is_found(scene):
    scene.messages[5] = answer("other ")
    assert scene.found() == {"heard-is-committed"}


def test_a_listener_that_broke_is_found(scene):
    scene.lines.append(Broke(t=9, listener="l3", error="EventsMissing"))
    assert scene.found() == {"listening-goes-on"}


def test_a_second_key_of_a_call_is_found(scene):
    [effect] = [line for line in scene.lines if isinstance(line, Effect)]
    scene.lines.append(effect)  # once more under the same key: at least once is what is promised
    assert scene.found() == set()
    scene.lines.append(replace(effect, key="run-a:2:n.1"))
    assert scene.found() == {"same-key-same-effect"}


def test_a_committed_call_without_an_effect_is_found(scene):
    scene.drop(Effect)
    assert scene.found() == {"committed-call-had-effect"}


def test_a_state_that_is_not_what_the_tools_made_it_is_found(scene):
    stored = Stored(t=99, version=3, messages=tuple(scene.messages), state={"count": 2, "last": "n.1"})
    assert scene.found_with(stored) == {"state-follows-tools"}


def test_a_count_that_was_lost_is_found(scene):
    scene.messages[2] = Message("tool", (result("n.1", "n.1 0"),))
    assert "state-follows-tools" in scene.found()


def test_a_turn_that_is_given_up_after_stops_alone_is_found(scene):
    given_up = RunFailed(seq=1, time=AT, code="attempts_exhausted", message="", retryable=False)
    scene.change(Heard, lambda line: replace(line, event=given_up), listener="l4")
    scene.faults = [Fault(t=4, until=4, name="term", target="worker-1") for _ in range(9)]
    assert scene.found() == {"interruptions-do-not-count"}
    scene.faults = [Fault(t=4, until=4, name="kill", target="worker-1") for _ in range(5)]
    assert scene.found() == set()


def test_a_model_that_raised_may_fail_its_run(scene):
    failed = RunFailed(seq=1, time=AT, code="internal", message="", retryable=False)
    scene.change(Heard, lambda line: replace(line, event=failed), listener="l4")
    assert scene.found() == {"outcome-has-a-cause"}
    scene.lines.append(Raised(t=4, label="c", error="panic"))
    assert scene.found() == set()


def test_a_refusal_without_a_name_is_found(scene):
    scene.change(Refused, lambda line: replace(line, error="KeyError"), label="d")
    assert scene.found() == {"explicit-refusal"}


def test_a_refusal_while_there_is_room_is_found(scene):
    scene.change(Refused, lambda line: replace(line, error="SessionBacklogFull"), label="d")
    assert scene.found() == {"place-comes-back"}


def test_a_history_that_does_not_hold_what_was_heard_is_found(scene):
    scene.lines.append(Read(t=20, version=2))
    assert scene.found() == set()
    scene.lines.append(Read(t=20, version=1))
    assert scene.found() == {"read-after-end"}


def test_a_run_that_speaks_on_after_its_cancellation_is_found(scene):
    scene.lines.append(CancelTaken(t=3.6, label="c"))
    speaking = [RunStarted(seq=1, time=AT, agent="w1"), TextDelta(seq=2, step=1, text="on ")]
    scene.listen("l5", "c", speaking)
    assert scene.found() == set()
    scene.change(Heard, lambda line: replace(line, t=line.t + 20), listener="l5")
    assert scene.found() == {"cancel-ends-run"}


def test_a_turn_that_waits_for_nothing_is_found(scene):
    scene.change(Heard, lambda line: replace(line, t=line.t + 80), listener="l3")
    assert scene.found() == {"others-go-on"}


def charged(t, nonce, pid=1, **more):
    where = {"run": "run-b", "step": 1, "call": nonce, "nonce": nonce, "key": nonce, "tool": "charge"}
    return Effect(t=t, until=t + 1, pid=pid, **{**where, **more})


def test_a_second_effect_of_a_tool_that_must_not_run_twice_is_found(scene):
    scene.lines.append(charged(20, "m.0"))
    assert scene.found() == set()
    scene.lines.append(charged(30, "m.1"))  # another call of the same step
    assert scene.found() == set()
    scene.lines.append(charged(40, "m.0"))
    assert scene.found() == {"at-most-once"}


def test_another_call_in_the_place_of_one_that_took_effect_is_found(scene):
    scene.lines += [charged(20, "m.0", tool="note"), charged(30, "n.0", pid=2, tool="note")]
    assert scene.found() == {"effect-is-not-repeated-anew"}
    scene.faults = [Fault(t=15, until=25, name="stop", target="worker-1", pid=1)]
    assert scene.found() == set()


def test_a_call_that_is_executed_after_its_result_is_found(scene):
    [effect] = [line for line in scene.lines if isinstance(line, Effect)]
    scene.lines.append(replace(effect, t=30, until=31))
    assert scene.found() == {"completed-call-stays"}


def test_effects_of_two_runs_at_one_time_are_found(scene):
    scene.lines += [charged(20, "m.0"), charged(20.5, "k.0", run="run-c")]
    assert scene.found() == {"one-at-a-time"}
