"""One model call of a run: streamed out as deltas, voided if the gateway tries again, recorded when whole."""

from collections.abc import Iterator

from atto.agents import Agent
from atto.models import Chunk, ModelRequest, ReasoningChunk, TextChunk
from atto.protocol import codec
from atto.protocol.errors import ModelError
from atto.protocol.events import ModelCompleted, ReasoningDelta, StepRestarted, TextDelta
from atto_workers.gateway import ModelGateway
from atto_workers.run.delegation import EventLog

_REASON = 2000
"""Characters of an error that are told; it may hold a whole page."""
_PIECE = 32_768
"""Characters in one delta at the most, so that whatever a model says at once fits into a message."""


async def call_model(
    agent: Agent, request: ModelRequest, *, step: int, log: EventLog, gateway: ModelGateway
) -> ModelCompleted:
    """The completed call, already in the log. Raises `ModelError` where the gateway does."""
    speech = _Speech(log, step)
    assembled = await gateway.call(agent.models, request, on_chunk=speech.add, on_restart=speech.restart)
    event = ModelCompleted(
        seq=log.next,
        first=log.first,
        step=step,
        message=assembled.message,
        usage=assembled.usage,
        finish=assembled.finish,
    )
    encoded = codec.encode(event)
    if len(encoded) > log.event_limit:
        raise ModelError(
            f"the model's message has {len(encoded):,} bytes, more than the {log.event_limit:,} that the "
            "broker takes in one message: ask for less (`max_tokens`), or raise its max_payload"
        )
    log.append(event, encoded)
    return event


class _Speech:
    """What a step says, as it is said."""

    def __init__(self, log: EventLog, step: int) -> None:
        self._log = log
        self._step = step
        self._heard_since = log.next

    def add(self, chunk: Chunk) -> None:
        if isinstance(chunk, TextChunk):
            kind = TextDelta
        elif isinstance(chunk, ReasoningChunk):
            kind = ReasoningDelta
        else:
            return
        log, text = self._log, chunk.text
        if len(text) > _PIECE:
            for piece in _pieces(text):
                log.append(kind(seq=log.next, step=self._step, text=piece))
        elif text:
            log.append(kind(seq=log.next, step=self._step, text=text))

    def restart(self, error: ModelError) -> None:
        """Voids what was said since the last time, if anything was."""
        log = self._log
        if log.next != self._heard_since:
            reason = f"the model failed: {error}"[:_REASON]
            log.append(StepRestarted(seq=log.next, step=self._step, reason=reason))
            self._heard_since = log.next


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
