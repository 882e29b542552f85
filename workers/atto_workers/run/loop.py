"""The agent loop: model, tools, model … until the model answers without asking for a tool."""

import asyncio
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from atto.agents import Agent, AgentTool
from atto.aio.user_code import describe
from atto.models import ModelRequest
from atto.protocol.errors import ModelError, ToolError, ToolTimeout
from atto.protocol.events import StateChange, StepRestarted
from atto.protocol.messages import Message, ToolCallPart, Usage
from atto.protocol.sessions import Snapshot
from atto_workers.gateway import ModelGateway
from atto_workers.run.delegation import ChildLog, EventLog
from atto_workers.run.journal import Progress
from atto_workers.run.model_calls import call_model
from atto_workers.run.scope import RunScope
from atto_workers.run.tool_calls import SessionState, ToolCalls
from atto_workers.turn_context import user_code


class StepsExhausted(Exception):
    """The model still asks for tools after `max_steps` steps."""


class InstructionFailed(Exception):
    """The agent's instruction function raised."""


class Answer(Struct, frozen=True):
    """What a run adds to its session: all messages from the user's to the answer, and the changed state."""

    messages: tuple[Message, ...]
    change: StateChange
    usage: Usage

    @property
    def message(self) -> Message:
        """The answer itself."""
        return self.messages[-1]


async def run_loop(
    agent: Agent,
    snapshot: Snapshot,
    user: Message,
    *,
    run_id: str,
    metadata: Mapping[str, str],
    headers: Mapping[str, str],
    log: EventLog,
    progress: Progress,
    gateway: ModelGateway,
    scope: RunScope,
    path: str = "",
) -> Answer:
    """Runs a turn on top of `snapshot`, going on from `progress`.

    `path`: where in the run the agent is; empty for the one that answers. `scope`: is
    asked before each model and tool call whether the run was stopped.

    Raises `Stopped`, `StepsExhausted`, `InstructionFailed`, `ModelError`; what a tool does wrong the model is
    told.
    """
    added = [user]
    state = SessionState(snapshot.state)
    usage = Usage()

    async def ask(
        tool: AgentTool, call: ToolCallPart, values: dict[str, Any], asked: Progress, said: ChildLog
    ) -> Answer:
        question = Message.user(tool.question(call.arguments))
        timeout = asyncio.timeout(tool.timeout)
        try:
            async with timeout:
                return await run_loop(
                    tool.agent,
                    Snapshot(session=snapshot.session, state=values),
                    question,
                    run_id=run_id,
                    metadata=metadata,
                    headers=headers,
                    log=said,
                    progress=asked,
                    gateway=gateway,
                    scope=scope,
                    path=said.path,
                )
        except TimeoutError:
            if not timeout.expired():
                raise
            raise ToolTimeout(f"agent {tool.agent.name} did not answer within {tool.timeout:g} s") from None
        except (ModelError, StepsExhausted, InstructionFailed) as error:
            raise ToolError(f"agent {tool.agent.name} could not answer: {error}") from error

    for step in range(1, agent.max_steps + 1):
        done = progress.steps[step - 1] if step <= len(progress.steps) else None
        if done is None:
            if progress.attempts and step == progress.was_in_step:
                log.append(StepRestarted(seq=log.next, step=step, reason="the turn was delivered again"))
            scope.check()
            request = await _request(agent, snapshot, added, state)
            model = await call_model(agent, request, step=step, log=log, gateway=gateway)
        else:
            model = done.model
        usage += model.usage
        added.append(model.message)
        if not model.message.tool_calls:
            return Answer(tuple(added), state.change, usage)
        calls = ToolCalls(
            agent,
            log,
            state,
            ask,
            scope,
            step=step,
            session=snapshot.session,
            run_id=run_id,
            metadata=metadata,
            headers=headers,
            path=path,
            progress=progress,
        )
        added.append(await calls.results(model.message, done))
        usage += calls.usage
    raise StepsExhausted(f"the model still asks for tools after {agent.max_steps} steps (max_steps)")


async def _request(
    agent: Agent, snapshot: Snapshot, added: list[Message], state: SessionState
) -> ModelRequest:
    return ModelRequest(
        messages=(*snapshot.messages, *added),
        instruction=await _instruction(agent, state),
        tools=agent.specs,
        temperature=agent.temperature,
        max_tokens=agent.max_tokens,
        stop=tuple(agent.stop),
        output_schema=None if agent.output_schema is None else dict(agent.output_schema),
        options=dict(agent.options),
        cache_key=snapshot.session,
    )


async def _instruction(agent: Agent, state: SessionState) -> str:
    if isinstance(agent.instruction, str):
        return agent.instruction
    try:
        with user_code("instruction", agent.name):
            return await agent.instruct(state.values)
    except Exception as error:
        raise InstructionFailed(f"the instruction raised {describe(error)}") from error
