"""When a failed model call is worth another try, and how many a worker makes in all."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atto.protocol.errors import ModelError
from atto_workers import RetryPolicy
from atto_workers.gateway.retries import RetryBudget

BUSY = ModelError("busy", transient=True, status=503)
TOO_MANY = ModelError("too many", transient=True, status=429)


def highest(_low: float, high: float) -> float:
    return high


def test_only_transient_errors_are_worth_another_try():
    assert RetryPolicy().pause(ModelError("forbidden"), 1) is None
    assert RetryPolicy().pause(BUSY, 1) is not None


def test_pauses_double_up_to_the_cap_and_tries_are_counted():
    policy = RetryPolicy(tries=6, base=1, cap=5)
    pauses = [policy.pause(BUSY, failures, highest) for failures in range(1, 8)]
    assert pauses == [1, 2, 4, 5, 5, None, None]


@given(
    failures=st.integers(1, 10**6),
    base=st.floats(0, 1e3),
    cap=st.floats(0, 1e3),
    luck=st.floats(0, 1),
)
def test_a_pause_is_between_zero_and_what_it_has_doubled_to(failures, base, cap, luck):
    policy = RetryPolicy(tries=10**7, base=base, cap=cap)
    pause = policy.pause(BUSY, failures, lambda low, high: low + (high - low) * luck)
    assert pause is not None
    assert 0 <= pause <= cap
    assert pause <= base * 2.0 ** min(failures - 1, 1000)


def test_jitter_is_full():
    policy = RetryPolicy(base=1)
    pauses = [policy.pause(BUSY, 3) or 0.0 for _ in range(1000)]
    assert min(pauses) < 0.4
    assert max(pauses) > 3.6


@given(asked=st.floats(0, 100), patience=st.floats(0, 100))
def test_retry_after_is_obeyed_up_to_the_patience(asked, patience):
    error = ModelError("busy", transient=True, retry_after=asked)
    pause = RetryPolicy(base=0.5, patience=patience).pause(error, 1)
    if asked > patience:
        assert pause is None
    else:
        assert pause is not None
        assert asked <= pause <= asked + 0.5


@given(
    budget=st.floats(0, 2),
    reserve=st.integers(0, 50),
    steps=st.lists(st.one_of(st.just("call"), st.just("retry"), st.floats(0, 30)), max_size=200),
)
def test_retries_stay_within_a_share_of_the_calls_and_the_reserve(budget, reserve, steps):
    time = 0.0
    bucket = RetryBudget(RetryPolicy(budget=budget, reserve=reserve), lambda: time)
    calls = retries = 0
    for step in steps:
        match step:
            case "call":
                bucket.called()
                calls += 1
            case "retry":
                retries += bucket.spend(BUSY)
            case float():
                time += step
        assert retries <= reserve * (1 + time / 60) + budget * calls + 1e-6


def test_an_outage_is_not_multiplied():
    time = 0.0
    bucket = RetryBudget(RetryPolicy(budget=0.1, reserve=6), lambda: time)
    made = 0
    for _ in range(1000):
        bucket.called()
        made += bucket.spend(BUSY)
    assert 100 <= made <= 106


def test_the_reserve_comes_back_within_a_minute():
    time = 0.0
    bucket = RetryBudget(RetryPolicy(budget=0, reserve=6), lambda: time)
    assert [bucket.spend(BUSY) for _ in range(7)] == [True] * 6 + [False]
    time = 59.0
    assert [bucket.spend(BUSY) for _ in range(6)] == [True] * 5 + [False]
    time = 600.0
    assert [bucket.spend(BUSY) for _ in range(7)] == [True] * 6 + [False]


def test_a_429_spends_nothing_and_no_budget_is_no_bound():
    bucket = RetryBudget(RetryPolicy(budget=0, reserve=0), lambda: 0.0)
    assert bucket.spend(TOO_MANY)
    assert not bucket.spend(BUSY)
    assert RetryBudget(RetryPolicy(budget=None, reserve=0), lambda: 0.0).spend(BUSY)


@pytest.mark.parametrize("options", [{"tries": 0}, {"base": -1}, {"budget": -0.1}, {"cap": -math.inf}])
def test_a_policy_that_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError):
        RetryPolicy(**options)
