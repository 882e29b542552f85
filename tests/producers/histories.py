"""Runs at random, as listeners hear them: what mergers hand out, and which text stands, in every language.

`python -m tests.producers.histories` writes `examples/producers/merging.jsonl`. Each line is one thing that
happens to a merger (`given`: a new merger, a batch, or that what is missing will not come any more), and what
it then says.
"""

import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from atto.protocol import codec, paths
from atto.protocol.events import (
    AgentStarted,
    AnyEvent,
    ModelCompleted,
    StepRestarted,
    TextDelta,
)
from atto.protocol.merge import Merger

GOLDEN = Path(__file__).parents[2] / "examples" / "producers" / "merging.jsonl"
GOLDEN_SEEDS = (*range(36), 40, 71, 83, 92)  # the last ones have to read all once more
EPOCH = 1_764_000_000_000_000  # attempts after the first are numbered by the time, in microseconds
_NOW = "2026-11-24T09:00:00Z"
_ASKED = re.compile(r"([0-9]+):")

JSON = dict[str, Any]


class History(NamedTuple):
    """The stream's batches in its order, how each attempt's are read, and what stands, by number."""

    stored: list[JSON]
    standing: dict[int, JSON]


class _Writer:
    """Speaks as one attempt does."""

    def __init__(self, rng: random.Random, attempt: int, since: int, recorded: int) -> None:
        self.attempt = attempt
        self.since = since
        self.events: list[JSON] = []
        self._rng = rng
        self._next = since
        self._recorded = recorded
        self._step = 1

    def delta(self, path: str) -> None:
        kind = self._rng.choice(("text_delta", "text_delta", "reasoning_delta"))
        self._say(kind, path, step=self._step, text=f"{self.attempt % 1000}.{self._next}☃ ")

    def record(self, kind: str, path: str = "", **fields: Any) -> None:
        first = self._recorded + 1
        self._recorded = self._next
        if first < self._next:
            fields["first"] = first
        self._say(kind, path, **fields)

    def one_more(self) -> None:
        """Some event, as a run of several agents says it."""
        rng, step = self._rng, self._step
        path = rng.choice(("", "", "writer", f"{step}:call_1", f"{step}:call_1/1:call_%40"))
        match rng.randint(0, 12):
            case 0:
                content = [
                    {"type": "reasoning", "text": "hm"},
                    {"type": "text", "text": f"[{path}{self._next}"},
                    {"type": "text", "text": "] "},
                ]
                message = {"role": "assistant", "content": content}
                self.record("model_completed", path, step=step, message=message)
            case 1:
                self.record("tool_started", path, step=step, call_id="call_1", name="ask")
            case 2:
                result: JSON = {"call_id": "call_1", "name": "ask", "content": "done"}
                self.record("tool_completed", path, step=step, **result)
                self._step += 1
            case 3 if path:
                self.record(
                    "agent_started", path, agent="writer", **({"speaks": True} if rng.random() < 0.7 else {})
                )
            case 4:
                self.record("step_restarted", path, step=max(1, step - rng.randint(0, 1)), reason="again")
            case 5:
                self.record(
                    rng.choice(("custom", "of_a_newer_release")), path, data={"text": "no text of the run"}
                )
            case _:
                for _ in range(rng.randint(1, 4)):
                    self.delta(path)

    def _say(self, kind: str, path: str, **fields: Any) -> None:
        where = {"path": path} if path else {}
        self.events.append({"type": kind, "seq": self._next, **where, **fields})
        self._next += 1


def a_history(rng: random.Random) -> History:
    """Up to four attempts, of which the last one ends; each goes on somewhere in the one before it.

    Of some, messages that hold nothing but deltas have expired.
    """
    stored: list[JSON] = []
    standing: dict[int, JSON] = {}
    attempt, since, recorded = 0, 1, 0
    for left in reversed(range(rng.randint(1, 4))):
        attempt = 1 if attempt == 0 else max(attempt, EPOCH) + rng.randint(1, 3)
        writer = _Writer(rng, attempt, since, recorded)
        number = {} if attempt == 1 else {"attempt": attempt}
        writer.record("run_started", time=_NOW, agent="a", **number)
        if attempt > 1:
            writer.record("step_restarted", step=1, reason="delivered again")
        for _ in range(rng.randint(1, 6)):
            writer.one_more()
        if left == 0:
            answer = {"role": "assistant", "content": []}
            writer.record("run_completed", time=_NOW, message=answer, version=1)
        stored += _batches(rng, writer)
        standing = {seq: event for seq, event in standing.items() if seq < since}
        standing |= {event["seq"]: event for event in writer.events}
        since = rng.randint(max(1, since, max(standing) - 6), max(standing) + 1)
        records = [
            seq for seq, event in standing.items() if seq < since and not event["type"].endswith("_delta")
        ]
        recorded = max(records, default=0)
    if rng.random() < 0.6:
        stored = [batch for batch in stored if not _is_of_deltas(batch) or rng.random() < 0.4]
    return History(stored, standing)


def _batches(rng: random.Random, writer: _Writer) -> list[JSON]:
    batches: list[JSON] = []
    events = writer.events
    while events:
        size = rng.randint(1, 3)
        head = {"v": 2, "attempt": writer.attempt, "since": writer.since}
        batches.append({**head, "events": events[:size]})
        events = events[size:]
    return batches


def _is_of_deltas(batch: JSON) -> bool:
    return all(event["type"].endswith("_delta") for event in batch["events"])


def heard(rng: random.Random, history: History) -> list[JSON]:
    """A new merger; then what comes live, some of it late, twice or never; then a replay or two.

    One attempt is not heard at all, as if the connection was away.
    """
    deaf_to = rng.choice([batch["attempt"] for batch in history.stored])
    live = [batch for batch in history.stored if batch["attempt"] != deaf_to and rng.random() < 0.8]
    live += rng.sample(live, k=min(3, len(live)))
    for _ in range(rng.randint(0, 4) if live else 0):
        one, other = rng.randrange(len(live)), rng.randrange(len(live))
        live[one], live[other] = live[other], live[one]
    at = rng.randint(0, len(live))
    early = history.stored[: rng.randint(0, len(history.stored))]
    return [{"begin": True}, *live[:at], *_replay(early), *live[at:], *_replay(history.stored)]


def _replay(stored: list[JSON]) -> list[JSON]:
    """All of it, after which what is missing is known not to come."""
    return [*stored, {"skip": True}]


class Transcript:
    """The text that stands, from all that was handed out: the page's words in their simplest form."""

    def __init__(self) -> None:
        self._events: list[AnyEvent] = []

    def add(self, event: AnyEvent) -> None:
        self._events = [said for said in self._events if said.seq < event.seq]
        if isinstance(event, StepRestarted):
            self._events = [said for said in self._events if not _is_voided(said, event)]
        self._events.append(event)

    @property
    def text(self) -> str:
        speaking = {event.path for event in self._events if isinstance(event, AgentStarted) and event.speaks}
        whole = {(event.path, event.step) for event in self._events if isinstance(event, ModelCompleted)}
        text = ""
        for event in self._events:
            if event.path and event.path not in speaking:
                continue
            if isinstance(event, ModelCompleted):
                text += event.message.text
            elif isinstance(event, TextDelta) and (event.path, event.step) not in whole:
                text += event.text
        return text


def _is_voided(said: AnyEvent, restart: StepRestarted) -> bool:
    step = getattr(said, "step", None)
    if said.path == restart.path:
        return step is not None and step >= restart.step
    return paths.is_voided(said.path, restart.path, restart.step)


def said(given: list[JSON], history: History) -> Iterator[JSON]:
    """What the Merger says to each thing, as lines of the golden file; what must be read again is."""
    merger, transcript = Merger(), Transcript()
    waiting = list(given)
    while waiting:
        happens = waiting.pop(0)
        events: list[AnyEvent] = []
        if "begin" in happens:
            merger, transcript = Merger(), Transcript()
        elif "skip" in happens:
            events += merger.skip()
        else:
            events += merger.add(codec.decode_batch(msgspec.json.encode(happens)))
        for event in events:
            transcript.add(event)
        reread, merger.must_reread = merger.must_reread, False
        if reread:
            waiting += _replay(history.stored)
        yield {
            "given": happens,
            "due": [f"{merger.speaker(event.seq)}-{event.seq}" for event in events],
            "gap": merger.has_gap,
            "reread": reread,
            "text": transcript.text,
        }


def lines(seed: int) -> list[JSON]:
    """One run, as it was heard."""
    rng = random.Random(seed)
    history = a_history(rng)
    return list(said(heard(rng, history), history))


def golden() -> bytes:
    """The file."""
    return b"".join(msgspec.json.encode(line) + b"\n" for seed in GOLDEN_SEEDS for line in lines(seed))


if __name__ == "__main__":
    GOLDEN.write_bytes(golden())
