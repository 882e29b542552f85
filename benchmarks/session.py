"""What a turn costs as its session grows, over the whole path: `session`. (For commits alone: `growth`.)

One turn after the other, in a few sessions by turns. Around turns 50 and 500: the median of the latency, the
CPU of client, worker, broker and database, and the bytes that the broker and the database's log have written
for a turn. The last line of output is a JSON object, by store and turn.
"""

from benchmarks.command import median, run, table
from benchmarks.records import Ratio, Record, new_record
from benchmarks.weather.contenders import ATTO, POSTGRES, Contender, contender

MARKS = (50, 500)
AROUND = 48
"""Turns around a mark that are measured together: whole rounds of what a store does now and then."""
SESSIONS = 4
LIMIT = 1.1


async def measure(is_quick: bool) -> Record:
    marks = (50, 100) if is_quick else MARKS
    sessions = 1 if is_quick else SESSIONS
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name in (ATTO,) if is_quick else (ATTO, POSTGRES):
        async with contender(name) as running:
            figures[name] = await _growth(running, sessions, marks)
            await running.verify()
    table(
        ("store", "turn", "latency ms", "CPU ms", "bytes"),
        (
            (name, turn, f"{cost['latency_ms']:.3f}", f"{cost['cpu_ms']:.3f}", f"{cost['bytes']:,.0f}")
            for name, costs in figures.items()
            for turn, cost in costs.items()
        ),
    )
    ratios = {
        f"{of} of turn {marks[1]} to turn {marks[0]}, {name}": Ratio(
            costs[str(marks[1])][of] / costs[str(marks[0])][of], LIMIT, less_is_better=True
        )
        for name, costs in figures.items()
        for of in ("latency_ms", "cpu_ms", "bytes")
    }
    return new_record("session", ratios, {"by_store": figures})


async def _growth(running: Contender, sessions: int, marks: tuple[int, int]) -> dict[str, dict[str, float]]:
    """In the order of turns; the sessions one after another in short stretches."""
    await running.measured(loop=1, seconds=0.5)
    chosen = await running.caller.ask(list[str], sessions=sessions)
    costs: dict[str, dict[str, float]] = {}
    done = 0
    for mark in marks:
        first = mark - AROUND // 2
        for session in chosen:
            await running.measured(session=session, turns=first - done)
        costs[str(mark)] = await _cost(running, chosen)
        done = first + AROUND
    return costs


async def _cost(running: Contender, chosen: list[str]) -> dict[str, float]:
    written = await running.bytes_written()
    measured = [await running.measured(session=session, turns=AROUND) for session in chosen]
    written = await running.bytes_written() - written
    turns = sum(each.window.turns for each in measured)
    return {
        "latency_ms": round(median(median(each.window.turn_ms) for each in measured), 3),
        "cpu_ms": round(median(sum(each.cpu_ms.values()) for each in measured), 4),
        "bytes": round(written / turns),
    }


def main(arguments: list[str]) -> int:
    return run("session", __doc__, measure, arguments)
