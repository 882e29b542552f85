"""One model call of a run: streamed out as deltas, retried where that may help, recorded when complete."""

import asyncio
import contextlib
import logging
from collections.abc import Iterator

from atto.agents import Agent
from atto.models import ModelRequest, ReasoningChunk, TextChunk
from atto.models.assemble import Assembled, Assembler
from atto.protocol import codec
from atto.protocol.errors import ModelError
from atto.protocol.events import ModelCompleted, ReasoningDelta, StepRestarted, TextDelta
from atto_workers.gateway import RetryPolicy
from atto_workers.run.log import RunLog

_log = logging.getLogger("atto.worker")

_PIECE = 32_768
"""Characters in one delta at the most, so that whatever a model says at once fits into a message."""


async def call_model(
    agent: Agent, request: ModelRequest, *, step: int, log: RunLog, policy: RetryPolicy
) -> ModelCompleted:
    """The completed call, already in the log. Raises `ModelError` once no further try is worth it."""
    failures = 0
    while True:
        spoken = log.next
        try:
            assembled = await _stream(agent, request, step, log)
            break
        except ModelError as error:
            failures += 1
            pause = policy.pause(error, failures)
            if pause is None:
                raise
            if log.next != spoken:
                log.append(StepRestarted(seq=log.next, step=step, reason=f"the model failed: {error}"))
            await asyncio.sleep(pause)
    event = ModelCompleted(
        seq=log.next,
        step=step,
        message=assembled.message,
        usage=assembled.usage,
        finish=assembled.finish,
    )
    size = len(codec.encode(event))
    if size > log.event_limit:
        raise ModelError(
            f"the model's message has {size:,} bytes, more than the {log.event_limit:,} that the broker "
            "takes in one message: ask for less (`max_tokens`), or raise its max_payload"
        )
    log.append(event)
    return event


async def _stream(agent: Agent, request: ModelRequest, step: int, log: RunLog) -> Assembled:
    model = agent.model
    assembler = Assembler(model.origin)
    try:
        async with contextlib.aclosing(model.stream(request)) as chunks:
            async for chunk in chunks:
                assembler.add(chunk)
                match chunk:
                    case TextChunk(text):
                        for piece in _pieces(text):
                            log.append(TextDelta(seq=log.next, step=step, text=piece))
                    case ReasoningChunk(text):
                        for piece in _pieces(text):
                            log.append(ReasoningDelta(seq=log.next, step=step, text=piece))
                    case _:
                        pass
        return assembler.finish()
    except ModelError:
        raise
    except Exception as error:
        _log.warning("the model of agent %s raised", agent.name, exc_info=error)
        raise ModelError(f"{type(model).__name__} raised {type(error).__name__}: {error}") from error


def _pieces(text: str) -> Iterator[str]:
    return (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))
