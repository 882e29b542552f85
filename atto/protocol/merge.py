"""One run's event batches, in whatever order and however often they come, as the one sequence they are."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from atto.protocol.events import AnyEvent, EventBatch, RecordEvent


class Merger:
    """Hands out events in the order of their numbers, each once, and notices what is missing.

    Batches come live and from replay: repeated, late, or never. A newer attempt voids what older ones said
    from its `since` on; if some of that was handed out already, the numbers go back to `since` (the event
    there, `StepRestarted` or `RunStarted`, tells the listener where the run now stands).

    Numbers that are missing before a record, and that it says are deltas', belong to deltas that have
    expired, or that are still to come: `skip` passes them over.
    """

    def __init__(self) -> None:
        self._next = 1
        self._since: dict[int, int] = {}
        self._newest = 0
        self._early: dict[int, tuple[int, AnyEvent]] = {}
        # Who said what was handed out: (first number, attempt), by number.
        self._said: list[tuple[int, int]] = []
        self.must_reread = False
        """Set when what has been handed out must be heard again: add all of the run's batches once more."""

    @property
    def has_gap(self) -> bool:
        """Whether an event is missing although a later one is here."""
        return bool(self._early)

    @property
    def waiting(self) -> Iterable[AnyEvent]:
        """The events that are here although one before them is missing."""
        return (event for _, event in self._early.values())

    @property
    def attempts(self) -> AbstractSet[int]:
        """The attempts that were heard of."""
        return self._since.keys()

    def speaker(self, number: int) -> int:
        """The attempt whose event was handed out under `number`; 0 if there was none."""
        if number >= self._next:
            return 0
        return next((attempt for first, attempt in reversed(self._said) if first <= number), 0)

    def add(self, batch: EventBatch) -> Sequence[AnyEvent]:
        """The events that `batch` makes due."""
        attempt, events = batch.attempt, batch.events
        if attempt not in self._since:
            self._hear_of(attempt, batch.since)
        if attempt == self._newest and not self._early and _is_run(events, self._next):
            self._said_by(attempt, len(events))  # as nearly always
            return events
        limit = min((since for newer, since in self._since.items() if newer > attempt), default=None)
        for event in events:
            if event.seq >= self._next and (limit is None or event.seq < limit):
                held = self._early.get(event.seq)
                if held is None or held[0] < attempt:
                    self._early[event.seq] = (attempt, event)
        return self._due()

    def skip(self) -> Sequence[AnyEvent]:
        """What is due once missing deltas are passed over, for they will not come any more."""
        due = self._due()
        while self._early and self._is_covered():
            self._next = min(self._early)
            due += self._due()
        return due

    def _is_covered(self) -> bool:
        """Whether a record that is here says that nothing but deltas is missing before the next event."""
        return any(
            isinstance(event, RecordEvent) and 0 < event.first <= self._next
            for _, event in self._early.values()
        )

    def _due(self) -> list[AnyEvent]:
        """What waited for its turn, and need not wait any longer."""
        due: list[AnyEvent] = []
        while (held := self._early.pop(self._next, None)) is not None:
            speaker, event = held
            self._said_by(speaker, 1)
            due.append(event)
        return due

    def _said_by(self, speaker: int, events: int) -> None:
        """So many events that are due now are handed out."""
        if not self._said or self._said[-1][1] != speaker:
            self._said.append((self._next, speaker))
        self._next += events

    def _hear_of(self, attempt: int, since: int) -> None:
        """A new attempt: void what older ones said from `since` on, be it waiting or handed out."""
        self._since[attempt] = since
        self._newest = max(self._newest, attempt)
        self._early = {seq: held for seq, held in self._early.items() if held[0] >= attempt or seq < since}
        for at, (first, speaker) in enumerate(self._said):
            until = self._said[at + 1][0] if at + 1 < len(self._said) else self._next
            if speaker < attempt and since < until:
                self._next = max(first, since)
                self.must_reread = self.must_reread or any(by > attempt for _, by in self._said[at:])
                del self._said[at + 1 if since > first else at :]
                return


def _is_run(events: Sequence[AnyEvent], first: int) -> bool:
    """Whether they begin at `first`, and end where they do if no number is left out."""
    return bool(events) and events[0].seq == first and events[-1].seq == first + len(events) - 1
