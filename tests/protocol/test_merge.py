"""Whatever order batches come in, and however often, listeners hear the one run that they make up."""

import itertools
from collections import deque
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.protocol.events import EventBatch, RunStarted, TextDelta
from atto.protocol.merge import Merger

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def event(attempt: int, seq: int) -> TextDelta:
    return TextDelta(seq=seq, step=1, text=f"{attempt}.{seq}")


@st.composite
def runs(draw):
    """The attempts of a run, each as `(since, last)`. A later one may begin below what an earlier one said:
    the earlier owner was paused, and spoke again after it had lost the partition.
    """
    attempts = [(1, draw(st.integers(1, 12)))]
    for _ in range(draw(st.integers(0, 3))):
        since = draw(st.integers(attempts[-1][0], attempts[-1][1] + 1))
        attempts.append((since, draw(st.integers(since, since + 8))))
    return attempts


def batches_of(draw, attempts):
    """The run's batches in the order of the stream: each attempt's cut at random."""
    found = []
    for attempt, (since, last) in enumerate(attempts, 1):
        seq = since
        while seq <= last:
            until = draw(st.integers(seq, last))
            events = tuple(event(attempt, number) for number in range(seq, until + 1))
            found.append(EventBatch(attempt=attempt, since=since, events=events))
            seq = until + 1
    return found


def cut(attempts, size: int):
    """As `batches_of`, each of `size` events where there are so many."""
    return [
        EventBatch(
            attempt=attempt,
            since=since,
            events=tuple(event(attempt, number) for number in range(first, min(first + size, last + 1))),
        )
        for attempt, (since, last) in enumerate(attempts, 1)
        for first in range(since, last + 1, size)
    ]


def small_runs():
    """All runs of two attempts or three that have few events."""
    for last in range(1, 4):
        for since in range(1, last + 2):
            for until in range(since, since + 2):
                yield [(1, last), (since, until)]
                if last == 2:
                    for third in range(since, until + 2):
                        yield [(1, last), (since, until), (third, third + 1)]


def standing(attempts) -> list[str]:
    """What counts in the end: of each number, what the newest attempt that took it says."""
    said: list[str] = []
    for attempt, (since, last) in enumerate(attempts, 1):
        del said[since - 1 :]
        said += [f"{attempt}.{seq}" for seq in range(since, last + 1)]
    return said


def heard(batches) -> tuple[list[str], list[str], Merger]:
    """All that a listener was told, and what of it stands."""
    merger, told, kept = Merger(), [], []
    waiting = deque(batches)
    while waiting:
        for said in merger.add(waiting.popleft()):
            told.append(said.text)
            assert said.seq <= len(kept) + 1, "a number was left out"
            del kept[said.seq - 1 :]
            kept.append(said.text)
        if merger.must_reread:
            merger.must_reread = False
            waiting.extend(batches)
    return told, kept, merger


@given(st.data())
def test_in_any_order_and_with_repeats_what_stands_is_the_same(data):
    attempts = data.draw(runs())
    batches = batches_of(data.draw, attempts)
    shuffled = data.draw(st.permutations(batches + data.draw(st.lists(st.sampled_from(batches)))))
    _, kept, merger = heard(shuffled)
    assert kept == standing(attempts)
    assert not merger.has_gap


@pytest.mark.parametrize("size", [1, 2])
def test_small_runs_stand_the_same_in_every_order(size):
    """Few of all orders let an owner that lost the partition speak just where its successor goes on."""
    for attempts in small_runs():
        for shuffled in itertools.permutations(cut(attempts, size)):
            _, kept, merger = heard(shuffled)
            assert kept == standing(attempts), shuffled
            assert not merger.has_gap


@given(st.data())
def test_a_run_of_one_attempt_is_heard_once(data):
    attempts = [(1, data.draw(st.integers(1, 30)))]
    batches = batches_of(data.draw, attempts)
    shuffled = data.draw(st.permutations(batches * 2))
    told, _, _ = heard(shuffled)
    assert told == standing(attempts)


@given(st.data())
def test_a_missing_batch_is_noticed_and_filled_in_later(data):
    batches = batches_of(data.draw, [(1, data.draw(st.integers(2, 30)))])
    missing = data.draw(st.integers(0, len(batches) - 1))
    rest = batches[:missing] + batches[missing + 1 :]
    _, kept, merger = heard(rest)
    assert merger.has_gap == (missing < len(batches) - 1)
    assert kept == [said.text for batch in batches[:missing] for said in batch.events]
    told = [said.text for said in merger.add(batches[missing])]
    assert kept + told == [said.text for batch in batches for said in batch.events]


def test_a_hole_in_a_batch_is_a_hole():
    merger = Merger()
    assert [said.seq for said in merger.add(EventBatch(events=(event(1, 1), event(1, 3))))] == [1]
    assert merger.has_gap
    assert [said.seq for said in merger.add(EventBatch(events=(event(1, 2),)))] == [2, 3]
    assert not merger.has_gap


def test_an_older_attempt_that_is_heard_late_takes_nothing_back():
    merger = Merger()
    new = EventBatch(attempt=2, since=1, events=(event(2, 1), event(2, 2)))
    assert [said.text for said in merger.add(new)] == ["2.1", "2.2"]
    assert list(merger.add(EventBatch(events=(event(1, 1), event(1, 2), event(1, 3))))) == []
    assert not merger.has_gap
    assert not merger.must_reread
    more = EventBatch(attempt=2, since=1, events=(event(2, 3),))
    assert [said.text for said in merger.add(more)] == ["2.3"]


def test_a_newer_attempt_takes_back_what_a_paused_owner_said():
    merger = Merger()
    old = EventBatch(events=(event(1, 1), event(1, 2), event(1, 3)))
    late = EventBatch(events=(event(1, 4),))
    new = EventBatch(attempt=2, since=2, events=(RunStarted(seq=2, time=NOW, agent="a", attempt=2),))
    assert [said.seq for said in merger.add(old)] == [1, 2, 3]
    assert [said.seq for said in merger.add(new)] == [2]
    assert list(merger.add(late)) == []
    assert list(merger.add(old)) == []
    more = EventBatch(attempt=2, since=2, events=(event(2, 3),))
    assert [said.text for said in merger.add(more)] == ["2.3"]
