"""One model call of a run: streamed out as deltas, retried where that may help, recorded when complete."""

import asyncio
import contextlib

from atto.agents import Agent
from atto.models import ModelRequest, ReasoningChunk, TextChunk
from atto.models.assemble import Assembled, Assembler
from atto.protocol.errors import ModelError
from atto.protocol.events import ModelCompleted, ReasoningDelta, StepRestarted, TextDelta
from atto_workers.gateway import RetryPolicy
from atto_workers.run.log import RunLog


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
                    case TextChunk(text) if text:
                        log.append(TextDelta(seq=log.next, step=step, text=text))
                    case ReasoningChunk(text) if text:
                        log.append(ReasoningDelta(seq=log.next, step=step, text=text))
                    case _:
                        pass
        return assembler.finish()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{type(model).__name__} raised {type(error).__name__}: {error}") from error
