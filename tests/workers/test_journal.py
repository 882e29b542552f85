"""Where a new attempt goes on: what the events of a run, whatever came of them, add up to."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from atto.protocol.events import (
    EventBatch,
    ModelCompleted,
    RunCompleted,
    RunStarted,
    StateChange,
    StepRestarted,
    TextDelta,
    ToolCompleted,
    ToolStarted,
)
from atto.protocol.messages import Message, TextPart, ToolCallPart
from atto_workers.run.journal import fold

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def a_run(steps: int):
    """The events of a run with one tool call a step but the last."""
    events = [RunStarted(seq=1, time=NOW, agent="a")]

    def add(kind, **fields):
        events.append(kind(seq=len(events) + 1, **fields))

    for step in range(1, steps + 1):
        add(TextDelta, step=step, text="x")
        calls = () if step == steps else (ToolCallPart(f"c{step}", "t"),)
        message = Message("assistant", (TextPart("x"), *calls))
        add(ModelCompleted, step=step, message=message)
        for call in calls:
            add(ToolStarted, step=step, call_id=call.id, name=call.name)
            change = StateChange(set={"step": step})
            add(ToolCompleted, step=step, call_id=call.id, name="t", content="ok", change=change)
    add(RunCompleted, time=NOW, message=events[-1].message, version=1)
    return events


@given(st.integers(1, 4), st.data())
def test_any_prefix_tells_what_had_completed_whatever_the_order_of_the_batches(steps, data):
    events = a_run(steps)
    cut = data.draw(st.integers(0, len(events)))
    kept = events[:cut]
    batches = [EventBatch(events=(event,)) for event in kept]
    progress = fold(data.draw(st.permutations(batches)))
    models = [event for event in kept if isinstance(event, ModelCompleted)]
    tools = [event for event in kept if isinstance(event, ToolCompleted)]
    assert [done.model for done in progress.steps] == models
    assert [event for done in progress.steps for event in done.results.values()] == tools
    assert (progress.terminal is not None) == (cut == len(events))
    assert progress.next == cut + 1
    assert progress.attempts == (1 if cut else 0)


@given(st.integers(2, 4), st.data())
def test_what_comes_after_a_hole_does_not_count(steps, data):
    events = a_run(steps)
    hole = data.draw(st.integers(0, len(events) - 1))
    progress = fold([EventBatch(events=(event,)) for event in events if event is not events[hole]])
    assert [done.model for done in progress.steps] == [
        event for event in events[:hole] if isinstance(event, ModelCompleted)
    ]
    assert progress.terminal is None
    assert (
        progress.next == hole + 1
    )  # where the next attempt speaks from, so that listeners get past the hole


def test_a_restarted_step_is_not_done():
    events = a_run(3)[:-1]
    batches = [
        EventBatch(events=tuple(events)),
        EventBatch(events=(StepRestarted(seq=len(events) + 1, step=2, reason="x"),)),
    ]
    progress = fold(batches)
    assert len(progress.steps) == 1
    assert progress.steps[0].results.keys() == {"c1"}


def test_what_a_former_owner_says_late_does_not_count():
    first = a_run(2)
    spoke_late = EventBatch(events=tuple(first[2:]))
    again = RunStarted(seq=3, time=NOW, agent="a", attempt=2)
    progress = fold(
        [
            EventBatch(events=tuple(first[:2])),
            EventBatch(attempt=2, since=3, events=(again,)),
            spoke_late,
        ]
    )
    assert progress.steps == []
    assert progress.terminal is None
    assert progress.attempts == 2
    assert progress.next == 4


def test_an_attempt_that_only_wrote_its_fence_lost_nothing():
    progress = fold([EventBatch(attempt=1, events=())])
    assert (progress.lost, progress.next, progress.attempts) == (None, 1, 1)


@given(st.integers(2, 6))
def test_a_fence_after_events_that_are_gone_tells_of_the_loss(since):
    assert fold([EventBatch(attempt=2, since=since, events=())]).lost


@given(st.integers(1, 4), st.data())
def test_a_journal_without_its_beginning_is_lost_unless_only_first_words_are_left(steps, data):
    events = a_run(steps)
    cut = data.draw(st.integers(1, len(events) - 1))
    last = data.draw(st.integers(cut + 1, len(events)))
    left = events[cut:last]
    progress = fold([EventBatch(events=(event,)) for event in left])
    is_harmless = all(isinstance(event, TextDelta | ModelCompleted) and event.step == 1 for event in left)
    assert (progress.lost is None) == is_harmless
    assert progress.steps == []
