"""How long sessions stood still after a fault: measured where callers listen.

Words of a run name the process that says them. A fault on a worker affects the sessions that it was speaking
in; one on the broker those in which a run was under way. Where the listener was hit too, nothing is measured.
"""

from bisect import bisect_left, bisect_right
from collections import defaultdict

from msgspec import Struct, field

from atto.protocol.events import RunStarted, TextDelta, is_terminal
from tests.chaos.audit import LATE
from tests.chaos.history import History
from tests.chaos.records import Fault

TAKEN_OVER = {"kill", "term", "term_saturated", "term_stubborn"}
"""Faults after which only another worker can go on, as after a fail point's."""


class Sample(Struct, frozen=True):
    """A session that `fault` stopped, for `seconds`; `alone`: no other fault came in between."""

    fault: int
    seconds: float
    alone: bool


class Spoken(Struct, frozen=True):
    """Something new was heard in a session, at `t`, said by process `pid` (0: unknown) to client `hearer`."""

    t: float
    pid: int
    hearer: str
    label: str
    ends: bool


class Recoveries(Struct):
    """Collects over the sessions. `faults` in the order of their times."""

    faults: list[Fault]
    samples: list[Sample] = field(default_factory=list)
    bit: set[int] = field(default_factory=set)

    def add(self, history: History) -> None:
        spoken = _spoken(history)
        if not spoken:
            return
        times = [said.t for said in spoken]
        first = bisect_left(self.faults, times[0], key=lambda fault: fault.until) if self.faults else 0
        for number in range(first, len(self.faults)):
            if self.faults[number].t > times[-1]:
                break
            self._look(number, history, spoken, times)

    def _look(self, number: int, history: History, spoken: list[Spoken], times: list[float]) -> None:
        fault = self.faults[number]
        before = spoken[: bisect_right(times, fault.t)]
        if fault.name == "client_kill":
            self._look_at_client(number, history)
            return
        speaking = before[-1] if before else None
        if speaking is None or speaking.ends or (fault.pid and speaking.pid != fault.pid):
            return
        if not fault.pid and fault.target.startswith("client"):
            self.bit.add(number)  # its listeners lost the connection; no worker stood still
            return
        self.bit.add(number)
        began, following = self._pause(fault, speaking, spoken, times)
        if following is not None and not self._is_deaf({speaking.hearer, following.hearer}, fault, following):
            seconds = max(0.0, following.t - began)
            self.samples.append(Sample(number, seconds, self._is_alone(number, following.t)))

    def _pause(
        self, fault: Fault, speaking: Spoken, spoken: list[Spoken], times: list[float]
    ) -> tuple[float, Spoken | None]:
        """From the fault (from its end, where the broker was away) to what is said next."""
        began = fault.until if fault.target in {"broker", "postgres"} else fault.t
        taken_over = fault.name in TAKEN_OVER or fault.name.startswith("fail_")
        for said in spoken[bisect_right(times, began) :]:
            if taken_over and said.pid == fault.pid:
                if fault.name.startswith("term"):
                    began = said.t  # it drains: the pause begins with its last word
                    if said.ends:
                        return began, said
                continue
            return began, said
        return began, None

    def _is_deaf(self, hearers: set[str], fault: Fault, following: Spoken) -> bool:
        return any(
            _client(other) in hearers and other.t < following.t and other.until > fault.t - 1
            for other in self.faults
        )

    def _look_at_client(self, number: int, history: History) -> None:
        fault = self.faults[number]
        process = _client(fault)
        for listener in history.listeners.values():
            if (
                listener.name.startswith(f"{process}.")
                and listener.terminal is None
                and listener.heard
                and listener.heard[-1][0] > fault.t - 1
            ):
                self.bit.add(number)

    def _is_alone(self, number: int, ended: float) -> bool:
        fault = self.faults[number]
        return not any(
            other is not fault and other.t < ended and other.until > fault.t
            for other in self.faults[max(0, number - 50) : number + 50]
            if not other.target.startswith("client")
        )


def _spoken(history: History) -> list[Spoken]:
    """What was heard, each event when the first of all listeners heard it."""
    first: dict[tuple[str, int, int, type], Spoken] = {}
    for listener in history.listeners.values():
        hearer, _, _ = listener.name.partition(".")
        if hearer == LATE:
            continue
        pid = 0
        for t, event in listener.heard:
            match event:
                case RunStarted():
                    pid = int(event.agent[1:])
                case TextDelta():
                    pid = int(event.text.partition(".")[0])
                case _:
                    pass
            key = (listener.label, event.seq, pid, type(event))
            if key not in first or t < first[key].t:
                first[key] = Spoken(t, pid, hearer, listener.label, is_terminal(event))
    return sorted(first.values(), key=lambda said: said.t)


def _client(fault: Fault) -> str:
    """How the client that it hit calls itself."""
    return f"c{fault.target.removeprefix('client-')}" if fault.target.startswith("client-") else ""


def by_kind(recoveries: Recoveries) -> dict[str, list[float]]:
    """Milliseconds of the samples that no other fault had a part in."""
    found: dict[str, list[float]] = defaultdict(list)
    for sample in recoveries.samples:
        if sample.alone:
            found[recoveries.faults[sample.fault].name].append(sample.seconds * 1000)
    return found


def percentiles(milliseconds: list[float]) -> dict[str, float]:
    ordered = sorted(milliseconds)
    if not ordered:
        return {}
    return {
        "p50": round(ordered[len(ordered) // 2], 1),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 1),
        "max": round(ordered[-1], 1),
        "n": len(ordered),
    }
