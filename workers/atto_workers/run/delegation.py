"""What an agent says that was asked by another one: events of the run that asks, under its own name."""

from typing import Protocol, cast

from atto.protocol.events import AgentEvent, AnyEvent, InnerEvent, ModelCompleted
from atto.protocol.messages import Usage

_ENVELOPE = 1024
"""Bytes that the event around another one takes at the most."""


class EventLog(Protocol):
    """Where a run's events go, in order."""

    @property
    def next(self) -> int:
        """The number of the next event."""
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


class DelegateLog:
    """The log of an agent that the call `call_id` of `step` asked, within that of the run that asks.

    `within`: the call, as idempotency keys name it (see `ToolContext`). `usage`: what the model calls cost
    that were logged here, those of agents that this one asked included.
    """

    def __init__(self, log: EventLog, *, step: int, call_id: str, agent: str) -> None:
        self.within = f"{step}:{_escaped(call_id)}:"
        self.usage = Usage()
        self._log = log
        self._step = step
        self._call_id = call_id
        self._agent = agent

    @property
    def next(self) -> int:
        """As of the run's log: inner and outer events are numbered together."""
        return self._log.next

    @property
    def event_limit(self) -> int:
        """How many bytes one event may have."""
        return self._log.event_limit - _ENVELOPE - len(self._call_id)

    def append(
        self,
        event: AnyEvent,
        encoded: bytes | None = None,  # noqa: ARG002 - as of EventLog
        *,
        guarded: bool = False,
    ) -> None:
        """Adds the event numbered `self.next`."""
        said = _innermost(event)
        if isinstance(said, ModelCompleted):
            self.usage += said.usage
        self._log.append(
            AgentEvent(
                seq=event.seq,
                step=self._step,
                call_id=self._call_id,
                agent=self._agent,
                event=cast("InnerEvent", event),
            ),
            guarded=guarded,
        )

    async def confirm(self) -> None:
        """Returns once the stream has all that was appended."""
        await self._log.confirm()


def _escaped(call_id: str) -> str:
    """So that no two paths of calls look the same: some servers' ids hold colons."""
    return call_id.replace("%", "%25").replace(":", "%3A")


def _innermost(event: AnyEvent) -> AnyEvent:
    while isinstance(event, AgentEvent):
        event = event.event
    return event
