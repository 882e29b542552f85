"""The log of an agent that another one asks: events of the run that asks, under a path of their own."""

from typing import Protocol

from msgspec.structs import replace

from atto.protocol.events import AnyEvent, ModelCompleted
from atto.protocol.messages import Usage
from atto.protocol.paths import MAX_PATH_BYTES, of_call


class EventLog(Protocol):
    """Where a run's events go, in order."""

    @property
    def next(self) -> int:
        """The number of the next event."""
        ...

    @property
    def first(self) -> int:
        """As of the next event, if it is a record."""
        ...

    @property
    def event_limit(self) -> int:
        """How many bytes one event may have."""
        ...

    def append(self, event: AnyEvent, encoded: bytes | None = None, *, guarded: bool = False) -> None:
        """Adds the event numbered `self.next`; `encoded`: its JSON, where it is known already.

        `guarded`: it is not published before `confirm`, and not at all where that is refused.
        """
        ...

    async def confirm(self) -> None:
        """Returns once the stream has all that was appended, as the words of the run's owner.

        Raises `Superseded`, `GaveUp` where this worker does not speak for the run.
        """
        ...


class ChildLog:
    """The log of the child at `path`, within that of its run.

    Attributes:
        path: Where it is.
        usage: What the model calls cost that were logged here, those of its own children included.

    """

    def __init__(self, log: EventLog, path: str) -> None:
        self.path = path
        self.usage = Usage()
        self._parent = log if isinstance(log, ChildLog) else None
        self._log = log.log if isinstance(log, ChildLog) else log

    @property
    def log(self) -> EventLog:
        """That of the run."""
        return self._log

    @property
    def next(self) -> int:
        """As of the run's log: all its events are numbered together."""
        return self._log.next

    @property
    def first(self) -> int:
        """As of the run's log."""
        return self._log.first

    @property
    def event_limit(self) -> int:
        """How many bytes one event may have."""
        return self._log.event_limit - MAX_PATH_BYTES

    def append(
        self,
        event: AnyEvent,
        encoded: bytes | None = None,  # noqa: ARG002 - as of EventLog
        *,
        guarded: bool = False,
    ) -> None:
        """Adds the event numbered `self.next`."""
        if isinstance(event, ModelCompleted):
            self._count(event.usage)
        self._log.append(replace(event, path=self.path), guarded=guarded)

    def _count(self, usage: Usage) -> None:
        self.usage += usage
        if self._parent is not None:
            self._parent._count(usage)  # noqa: SLF001 - of its own kind

    async def confirm(self) -> None:
        """Returns once the stream has all that was appended."""
        await self._log.confirm()


def child_log(log: EventLog, step: int, call_id: str) -> ChildLog:
    """The log of the agent that a call of `step` asks."""
    parent = log.path if isinstance(log, ChildLog) else ""
    return ChildLog(log, of_call(parent, step, call_id))
