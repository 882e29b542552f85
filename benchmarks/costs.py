"""The costs of one store: of commits, as a session grows, and of loading it."""

import statistics
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import NamedTuple, Self

from atto.protocol.sessions import Snapshot
from atto.stores import SessionStore
from benchmarks.backends import Backend
from benchmarks.commits import weather_turn

WINDOW = 48
"""How many commits are measured together; with eight of them, the KV store seals a segment."""

LOADS = 7
SESSION = "user-123"


class Cost(NamedTuple):
    """Of one commit."""

    latency_ms: float
    cpu_ms: float
    bytes: int


class Growth(NamedTuple):
    """Of one store: the cost of a commit by turn, and of loading the session as it was in the end."""

    turns: dict[int, Cost]
    loaded_turns: int
    load_ms: float
    load_round_trips: int

    def as_json(self) -> dict[str, object]:
        by_turn = {str(turn): cost._asdict() for turn, cost in self.turns.items()}
        return {
            **by_turn,
            "load_ms": self.load_ms,
            "load_round_trips": self.load_round_trips,
            "loaded_turns": self.loaded_turns,
        }


async def measure(backend: Backend, turns: Sequence[int]) -> Growth:
    """The growth of one session, from turn to turn."""
    await _committed(backend.store, Snapshot(session="to warm up"), range(1, 6))
    costs: dict[int, Cost] = {}
    snapshot = Snapshot(session=SESSION)
    for turn in turns:
        if turn == 1:
            newcomers = [Snapshot(session=f"newcomer-{number}") for number in range(WINDOW)]
            costs[turn] = await _cost_of_firsts(backend, newcomers)
        else:
            before = range(snapshot.version + 1, window(turn).start)
            snapshot = await _committed(backend.store, snapshot, before)
            snapshot, costs[turn] = await _cost_of_next(backend, snapshot, window(turn))
    if snapshot.version == 0:
        snapshot = await _committed(backend.store, snapshot, [1])
    load_ms = await _load_ms(backend.store, snapshot)
    return Growth(costs, snapshot.version, load_ms, await backend.round_trips(SESSION))


def window(turn: int) -> range:
    """The turns around `turn` that are measured together."""
    first = max(1, turn - WINDOW // 2 + 1)
    return range(first, first + WINDOW)


async def _committed(store: SessionStore, snapshot: Snapshot, turns: Iterable[int]) -> Snapshot:
    for turn in turns:
        snapshot = await store.save(snapshot, weather_turn(turn))
    return snapshot


class _Meter:
    """`async with _Meter(backend) as meter`, with `save` within; then `cost` is that of one of the saves."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._latencies: list[int] = []

    async def __aenter__(self) -> Self:
        self._written = await self._backend.written()
        self._cpu = self._backend.cpu_ns()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cpu = self._backend.cpu_ns() - self._cpu
        written = await self._backend.written() - self._written
        saves = len(self._latencies)
        self.cost = Cost(
            round(statistics.median(self._latencies) / 1e6, 3),
            round(cpu / saves / 1e6, 3),
            round(written / saves),
        )

    async def save(self, snapshot: Snapshot, turn: int) -> Snapshot:
        commit = weather_turn(turn)
        began = time.perf_counter_ns()
        saved = await self._backend.store.save(snapshot, commit)
        self._latencies.append(time.perf_counter_ns() - began)
        return saved


async def _cost_of_firsts(backend: Backend, newcomers: Iterable[Snapshot]) -> Cost:
    async with _Meter(backend) as meter:
        for snapshot in newcomers:
            await meter.save(snapshot, 1)
    return meter.cost


async def _cost_of_next(backend: Backend, snapshot: Snapshot, turns: range) -> tuple[Snapshot, Cost]:
    async with _Meter(backend) as meter:
        for turn in turns:
            snapshot = await meter.save(snapshot, turn)
    return snapshot, meter.cost


async def _load_ms(store: SessionStore, expected: Snapshot) -> float:
    took: list[float] = []
    for _ in range(LOADS):
        began = time.perf_counter_ns()
        loaded = await store.load(SESSION)
        took.append((time.perf_counter_ns() - began) / 1e6)
        if loaded is None or loaded.messages != expected.messages:
            raise SystemExit("what was loaded is not what was saved")
    return round(statistics.median(took), 1)
