"""A model that keeps failing is left alone, probed, and used again."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.protocol.errors import ModelError
from atto_workers import BreakerPolicy
from atto_workers.gateway.breaker import Breaker

BUSY = ModelError("busy", transient=True, status=503)
TOO_MANY = ModelError("too many", transient=True, status=429)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock) -> Breaker:
    return Breaker(
        BreakerPolicy(failures=3, cool_down=10, longest=100), "openai/gpt", patience=60, clock=clock
    )


def fail(breaker: Breaker, times: int, error: ModelError = BUSY) -> None:
    for _ in range(times):
        breaker.failed(breaker.enter(), error)


def test_it_opens_after_failures_in_a_row_and_says_until_when(breaker, clock):
    fail(breaker, 2)
    breaker.answered(breaker.enter())
    fail(breaker, 2)
    breaker.check()
    fail(breaker, 1)
    clock.now = 4.0
    with pytest.raises(ModelError, match=r"openai/gpt: not asked for another 6\.0 s.*: busy") as refusal:
        breaker.check()
    assert (refusal.value.transient, refusal.value.retry_after, refusal.value.status) == (True, 6.0, 503)


def test_one_probe_and_its_answer_closes_it(breaker, clock):
    fail(breaker, 3)
    clock.now = 10.0
    probe = breaker.enter()
    with pytest.raises(ModelError):
        breaker.enter()
    breaker.answered(probe)
    assert not breaker.is_open
    fail(breaker, 2)
    breaker.check()


def test_the_first_chunk_of_a_probe_closes_it_and_its_end_counts_as_any_other(breaker, clock):
    heard: list[str] = []
    fail(breaker, 3)
    clock.now = 10.0
    probe = breaker.enter()
    hear = breaker.watched(probe, heard.append)
    assert breaker.is_open
    hear("a")
    assert not breaker.is_open
    fail(breaker, 2)
    hear("b")
    breaker.check()
    breaker.failed(probe, BUSY)  # the third in a row
    hear("c")
    assert breaker.is_open
    assert heard == ["a", "b", "c"]


def test_the_first_chunk_of_another_call_closes_nothing(breaker, clock):
    early = breaker.enter()
    hear = breaker.watched(early, lambda _: None)
    fail(breaker, 3)
    clock.now = 10.0
    breaker.enter()
    hear("a")
    breaker.watched(early, lambda _: None)("b")
    assert breaker.is_open


def test_a_probe_that_fails_opens_it_for_another_while(breaker, clock):
    fail(breaker, 3)
    clock.now = 10.0
    fail(breaker, 1)
    clock.now = 19.0
    with pytest.raises(ModelError):
        breaker.check()
    clock.now = 20.0
    breaker.check()


def test_a_probe_whose_caller_leaves_makes_the_next_call_the_probe(breaker, clock):
    fail(breaker, 3)
    clock.now = 10.0
    breaker.left(breaker.enter())
    breaker.answered(breaker.enter())
    assert not breaker.is_open


def test_calls_from_before_it_opened_neither_close_it_nor_count(breaker, clock):
    old = [breaker.enter() for _ in range(10)]
    fail(breaker, 3)
    for ticket in old[:5]:
        breaker.answered(ticket)
    assert breaker.is_open
    clock.now = 10.0
    probe = breaker.enter()
    breaker.answered(old[5])
    breaker.left(old[6])
    breaker.failed(old[7], BUSY)
    assert breaker.is_open
    with pytest.raises(ModelError):  # the probe is still under way
        breaker.enter()
    breaker.answered(probe)
    assert not breaker.is_open


def test_a_retry_after_prolongs_the_cool_down_up_to_a_bound(breaker, clock):
    fail(breaker, 3, ModelError("later", transient=True, status=503, retry_after=30))
    clock.now = 29.9
    with pytest.raises(ModelError):
        breaker.check()
    clock.now = 30.0
    breaker.failed(breaker.enter(), ModelError("later", transient=True, retry_after=10**6))
    clock.now = 130.0
    breaker.check()


def test_a_429_is_no_failure_unless_it_asks_for_more_than_anybody_waits(breaker):
    fail(breaker, 50, TOO_MANY)
    breaker.check()
    fail(breaker, 1, ModelError("later", transient=True, status=429, retry_after=61))
    with pytest.raises(ModelError) as refusal:
        breaker.check()
    assert refusal.value.retry_after == 61


def test_a_probe_that_meets_a_429_leaves_the_next_call_as_the_probe(breaker, clock):
    fail(breaker, 3)
    clock.now = 10.0
    fail(breaker, 1, TOO_MANY)
    assert breaker.is_open
    breaker.enter()


def test_without_a_policy_it_never_opens(clock):
    breaker = Breaker(None, "openai/gpt", patience=60, clock=clock)
    fail(breaker, 1000)
    breaker.check()


@given(st.lists(st.sampled_from(["enter", "chunk", "answered", "failed", "left", "time"]), max_size=80))
def test_whatever_happens_it_heals(steps):
    """Once nothing is under way and the cool-down is over, a call is let in, and its answer closes it."""
    clock, tickets = Clock(), []
    breaker = Breaker(BreakerPolicy(failures=2, cool_down=10, longest=10), "m", patience=60, clock=clock)
    for step in steps:
        match step:
            case "enter":
                with contextlib.suppress(ModelError):
                    tickets.append(breaker.enter())
            case "time":
                clock.now += 6
            case "chunk" if tickets:
                breaker.watched(tickets[-1], lambda _: None)("a")
            case "failed" if tickets:
                breaker.failed(tickets.pop(0), BUSY)
            case "answered" | "left" if tickets:
                getattr(breaker, step)(tickets.pop(0))
    for ticket in tickets:
        breaker.left(ticket)
    clock.now += 10
    breaker.answered(breaker.enter())
    assert not breaker.is_open


@pytest.mark.parametrize("options", [{"failures": 0}, {"cool_down": 0}, {"longest": 1}])
def test_a_policy_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError):
        BreakerPolicy(**options)
