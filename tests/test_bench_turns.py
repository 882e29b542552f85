"""The benchmarks of the whole path measure what they say, durably. How long things take is not judged."""

import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks import records
from benchmarks.command import percentile
from benchmarks.compare import FIGURES
from benchmarks.pages import filled
from benchmarks.records import Ratio, new_record, regressions
from benchmarks.weather import work
from benchmarks.weather.contenders import ATTO, FLOOR, HistoryLost, contender
from tests.test_bench import bench

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="what processes cost is read from /proc"
)

CONTENDERS = ["atto", "floor", "plain floor"]


async def test_turns_ends_in_a_line_of_json():
    status, output, errors = await bench("turns", "--quick")
    assert (status, errors) == (0, "")
    figures = msgspec.json.decode(output.splitlines()[-1])
    for name in ("turns_per_s", "cpu_ms_per_turn", "first_event_ms", "first_delta_ms", "p50_ms", "p99_ms"):
        assert list(figures[name]) == CONTENDERS
        for by_in_flight in figures[name].values():
            assert list(by_in_flight) == ["1", "16"]
            assert all(value > 0 for value in by_in_flight.values())
    for name in CONTENDERS:
        for in_flight in ("1", "16"):
            by_process = figures["cpu_ms_by_process"][name][in_flight]
            assert by_process.keys() == {"client", "worker", "broker"}
            assert by_process["worker"] > 0 or name == "plain floor"  # its caller has the worker with it
            total = figures["cpu_ms_per_turn"][name][in_flight]
            assert total == pytest.approx(sum(by_process.values()), rel=0.25)
            assert figures["first_event_ms"][name][in_flight] <= figures["p50_ms"][name][in_flight]
    assert all(count >= 10 for count in figures["histories_verified"].values())
    assert figures["ratios"]["turns per s, atto to floor, at 16"] > 0
    assert figures["ratios"]["CPU a turn, atto to floor, at 16"] > 0


async def test_a_tree_beside_itself_costs_what_it_costs():
    status, output, errors = await bench(
        *("compare", ".", "--rounds", "1", "--seconds", "0.2", "--in-flight", "1,8", "--effects"),
        *("--tolerance", "1000"),
    )
    assert (status, errors) == (0, "")
    compared = msgspec.json.decode(output.splitlines()[-1])
    assert compared["effects"] is True
    assert list(compared["ratios"]) == ["1", "8"]
    for ratios in compared["ratios"].values():
        assert list(ratios) == list(FIGURES)
        assert all(ratio > 0 for ratio in ratios.values())


async def test_a_turn_that_costs_more_than_it_may_is_told():
    status, output, errors = await bench(
        *("compare", ".", "--rounds", "1", "--seconds", "0.2", "--in-flight", "1", "--tolerance", "-1")
    )
    assert status == 1
    assert errors.startswith("At 1 in flight a turn costs ")
    assert msgspec.json.decode(output.splitlines()[-1])["effects"] is False


async def test_paced_turns_take_as_long_as_the_model():
    status, output, errors = await bench("paced", "--quick")
    assert (status, errors) == (0, "")
    figures = msgspec.json.decode(output.splitlines()[-1])
    for figure in figures["by_contender"].values():
        assert figure["p50_ms"] >= 1000 * work.PACED.turn
        assert 0 < figure["of_ideal"] <= 1
        assert figure["first_delta_ms"] >= 1000 * (2 * work.PACED.first + work.PACED.delta)


async def test_a_killed_workers_turns_go_on():
    status, output, errors = await bench("takeover", "--quick")
    assert (status, errors) == (0, "")
    figures = msgspec.json.decode(output.splitlines()[-1])
    assert figures["runs_taken_over"] > 0
    assert 0 < figures["p50_ms"] <= figures["all_ms"]


async def test_a_fleet_settles_and_says_what_it_costs():
    status, output, errors = await bench("fleet", "--quick")
    assert (status, errors) == (0, "")
    [figures] = msgspec.json.decode(output.splitlines()[-1])["by_workers"].values()
    assert all(value > 0 for value in figures.values())
    assert figures["worker_ms_per_s"] < 1000


@pytest.mark.parametrize("name", [ATTO, FLOOR])
async def test_a_lost_turn_is_noticed(name):
    """The check of the histories can fail."""
    async with contender(name) as running:
        (session,) = await running.caller.ask(list[str], sessions=1)
        await running.measured(session=session, turns=2)

        async def one_more(kind, **command):
            ledger = await original(kind, **command)
            return {**ledger, session: 3}

        original = running.caller.ask
        running.caller.ask = one_more
        with pytest.raises(HistoryLost, match=session):
            await running.verify()


def test_the_workload_is_what_it_says():
    assert work.PACED.turn == pytest.approx(0.8)
    history = list(work.history("s0123456", 3))
    assert [entry.role for entry in history] == ["user", "call", "tool", "assistant"] * 3
    assert all(len(delta) == 8 for delta in work.deltas("s0123456", 12))
    assert len(work.deltas("s", 1)) == work.DELTAS
    assert work.check(history[8].text, 9, is_answering=False) == ("s0123456", 3)
    assert work.check(history[8].text, 11, is_answering=True) == ("s0123456", 3)
    with pytest.raises(work.HistoryBroken, match="5 messages instead of 9"):
        work.check(history[8].text, 5, is_answering=False)


def test_percentiles_are_by_nearest_rank():
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, percent) for percent in (1, 20, 50, 99, 100)] == [1, 1, 3, 5, 5]
    assert percentile([], 50) == 0


def test_a_ratio_that_got_worse_is_a_regression():
    recorded = {"more": Ratio(1.0), "less": Ratio(1.0, less_is_better=True)}
    within = {"more": Ratio(0.71), "less": Ratio(1.29, less_is_better=True), "new": Ratio(0.1)}
    assert list(regressions(within, recorded)) == []
    worse = {"more": Ratio(0.69), "less": Ratio(1.31, less_is_better=True)}
    assert list(regressions(worse, recorded)) == [
        "more is 0.69; it was 1 when it was last recorded.",
        "less is 1.31; it was 1 when it was last recorded.",
    ]


def test_results_are_kept_without_naming_the_place(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    record = new_record("turns", {"x": Ratio(2.0, 1.0)}, {"a": 1})
    kept = records.save(record).read_text()
    assert records.load("turns") == record
    assert str(Path.home()) not in kept
    assert str(Path(__file__).parent) not in kept
    assert records.load("nothing") is None


def test_recorded_tables_go_where_the_page_says():
    figures = {"runs_taken_over": 38, "p50_ms": 700.0, "p99_ms": 800.0, "all_ms": 900.0}
    page = "before\n<!-- takeover -->\nold\n<!-- /takeover -->\nafter"
    record = new_record("takeover", {}, figures)
    once = filled(page, {"takeover": record})
    assert "| 38 | 700 | 800 | 900 |" in once
    assert "old" not in once
    assert once.startswith("before\n<!-- takeover -->")
    assert filled(once, {"takeover": record}) == once
