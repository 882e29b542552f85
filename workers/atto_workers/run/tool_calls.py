"""The tool calls of one step: side by side unless told not to, each result and state change recorded."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from atto.agents import Agent, AgentTool, State, Tool, ToolContext, ToolError
from atto.aio.user_code import words
from atto.protocol import codec
from atto.protocol.errors import InvalidTurn
from atto.protocol.events import AgentCompleted, AgentStarted, StateChange, ToolCompleted, ToolStarted
from atto.protocol.messages import Message, ToolCallPart, ToolResultPart, Usage
from atto.protocol.paths import of_call
from atto.protocol.sessions import apply, compose
from atto_workers.run.delegation import ChildLog, EventLog, child_log
from atto_workers.run.journal import Progress, StepDone
from atto_workers.run.scope import RunScope
from atto_workers.run.standing import GaveUp, Superseded
from atto_workers.run.tool_failures import log_failure

_AROUND = 8
"""Levels by which batch and snapshot nest a result deeper, at the most."""


class SessionState:
    """The session's state as the run sees it, and what the run changed so far."""

    def __init__(self, committed: Mapping[str, Any]) -> None:
        self.values = dict(committed)
        self.change = StateChange()

    def apply(self, change: StateChange) -> None:
        """Takes over what one tool call changed."""
        self.values = apply(self.values, change)
        self.change = compose(self.change, change)


class Answered(Protocol):
    """What an agent that was asked gives back."""

    @property
    def message(self) -> Message:
        """The answer."""
        ...

    @property
    def change(self) -> StateChange:
        """What its tools changed in the session's state."""
        ...


class _Recorded(NamedTuple):
    """What an agent gave back in an earlier attempt."""

    message: Message
    change: StateChange


Ask = Callable[[AgentTool, ToolCallPart, dict[str, Any], Progress, ChildLog], Awaitable[Answered]]
"""Asks an agent as a call says, with the state as it is, from where it had come. Its words go to the log."""


class ToolCalls:
    """Runs the calls of one model message. `usage`: what agents that were asked cost."""

    def __init__(
        self,
        agent: Agent,
        log: EventLog,
        state: SessionState,
        ask: Ask,
        scope: RunScope,
        *,
        step: int,
        session: str,
        run_id: str,
        metadata: Mapping[str, str],
        headers: Mapping[str, str],
        path: str,
        progress: Progress,
    ) -> None:
        self.usage = Usage()
        self._ask = ask
        self._scope = scope
        self._path = path
        self._agent = agent
        self._log = log
        self._state = state
        self._step = step
        self._session = session
        self._run_id = run_id
        self._metadata = metadata
        self._headers = headers
        self._confirming = asyncio.Lock()
        self._confirmed = 0
        self._interrupted: set[str] = set()
        self._progress = progress

    async def results(self, message: Message, done: StepDone | None) -> Message:
        """The results, in the order of the calls. What an earlier attempt has `done` is not done again."""
        results = {} if done is None else dict(done.results)
        for event in results.values():
            self._state.apply(event.change)
        if done is not None:
            self._interrupted = done.started - results.keys()
            for call_id in results:
                self.usage += self._progress.usage_below(of_call(self._path, self._step, call_id))
        pending = [call for call in message.tool_calls if call.id not in results]
        for group in self._groups(pending):
            results.update((event.call_id, event) for event in await self._completed_group(group))
        return Message(
            "tool",
            tuple(
                ToolResultPart(call.id, call.name, results[call.id].content, results[call.id].is_error)
                for call in message.tool_calls
            ),
        )

    async def _completed_group(self, calls: list[ToolCallPart]) -> list[ToolCompleted]:
        """Of calls side by side. As many as may run at one time begin before any of them ends, so that those
        with effects are confirmed by one message.
        """
        begun = [self._start(call) for call in calls[: self._agent.max_parallel_tools]]
        if len(calls) == 1:
            return [await self._call(calls[0], begun[0])]
        places = asyncio.Semaphore(self._agent.max_parallel_tools)
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._call_within(places, call, number))
                    for call, number in itertools.zip_longest(calls, begun)
                ]
        except BaseExceptionGroup as group:
            for silenced in (GaveUp, Superseded):
                if group.subgroup(silenced) is not None:
                    raise silenced from None
            raise
        return [task.result() for task in running]

    def _start(self, call: ToolCallPart) -> int:
        """Says that the call begins; the number of the event that comes next."""
        event = ToolStarted(
            seq=self._log.next,
            step=self._step,
            call_id=call.id,
            name=call.name,
            arguments=call.arguments,
            malformed=call.malformed,
        )
        self._log.append(event, guarded=self._may_take_effect(call))
        return self._log.next

    async def _confirm(self, begun: int) -> None:
        """Before an effect: the stream has every event before the number `begun`, as the owner's words.

        Once a tool may have had an effect, a new attempt must know its call, or it would ask the model anew
        and repeat the effect under another idempotency key.
        """
        async with self._confirming:
            if self._confirmed < begun:
                confirmed = self._log.next
                await self._log.confirm()
                self._confirmed = confirmed

    def _groups(self, calls: Iterable[ToolCallPart]) -> list[list[ToolCallPart]]:
        """What may run side by side: neighbours, unless the agent or one of their tools says no."""
        groups: list[list[ToolCallPart]] = []
        joinable = False
        for call in calls:
            tool = self._agent.tool(call.name)
            parallel = self._agent.parallel_tool_calls and (tool is None or tool.parallel)
            if parallel and joinable:
                groups[-1].append(call)
            else:
                groups.append([call])
            joinable = parallel
        return groups

    def _may_take_effect(self, call: ToolCallPart) -> bool:
        """Whether the call may change something outside. An agent that is asked does so by its tools only,
        and says so itself before those.
        """
        tool = self._agent.tool(call.name)
        if tool is None or tool.read_only or isinstance(tool, AgentTool):
            return False
        return call.malformed is None and not self._must_not_run(tool, call)

    def _must_not_run(self, tool: Tool[..., Any], call: ToolCallPart) -> bool:
        return tool.at_most_once and call.id in self._interrupted

    async def _call_within(
        self, places: asyncio.Semaphore, call: ToolCallPart, begun: int | None
    ) -> ToolCompleted:
        async with places:
            return await self._call(call, self._start(call) if begun is None else begun)

    async def _call(self, call: ToolCallPart, begun: int) -> ToolCompleted:
        self._scope.check()
        content, is_error, change = await self._outcome(call, begun)
        event = self._completed(call, content, is_error, change)
        encoded = codec.encode(event)
        problem = self._unfit(encoded)
        if problem is not None:
            event = self._completed(call, problem, is_error=True, change=StateChange())
            encoded = None
        self._state.apply(event.change)
        self._log.append(event, encoded)
        return event

    async def _outcome(self, call: ToolCallPart, begun: int) -> tuple[Any, bool, StateChange]:
        try:
            tool = await self._begin(call, begun)
            if isinstance(tool, AgentTool):
                answer = await self._delegate(tool, call)
                return answer.message.text, False, answer.change
            view = State(self._state.values)
            context = ToolContext(
                session=self._session,
                run_id=self._run_id,
                step=self._step,
                call_id=call.id,
                metadata=self._metadata,
                headers=self._headers,
                state=view,
                path=self._path,
            )
            content = await tool.call(call.arguments, context)
            return content, False, view.changes()
        except ToolError as error:
            tool = self._agent.tool(call.name)
            if tool is not None and error.__cause__ is not None:
                # the model reads one line of it, the author wants the rest
                log_failure(tool, self._run_id, error, error.__cause__)
            return words(error), True, StateChange()

    async def _delegate(self, tool: AgentTool, call: ToolCallPart) -> Answered:
        log = child_log(self._log, self._step, call.id)
        asked = self._progress.child(log.path)
        before = self._progress.usage_below(log.path)
        if asked is None:
            log.append(AgentStarted(seq=log.next, agent=tool.agent.name))
            asked = Progress(children=self._progress.children)
        elif asked.answer is not None:
            self.usage += before
            return _Recorded(asked.answer.message, asked.answer.change)
        try:
            answer = await self._ask(tool, call, dict(self._state.values), asked, log)
        finally:
            self.usage += before + log.usage  # one that failed was paid for, too
        usage = before + log.usage
        log.append(AgentCompleted(seq=log.next, message=answer.message, usage=usage, change=answer.change))
        return answer

    async def _begin(self, call: ToolCallPart, begun: int) -> Tool[..., Any]:
        """The tool, which may run now: with an effect, only once it is certain that any successor knows."""
        tool = self._tool(call)
        if self._must_not_run(tool, call):
            raise ToolError(
                "the outcome of this call is unknown: the worker that ran it was lost, and the tool must "
                "not run twice. Find out by other means what it did before you call it again"
            )
        if self._may_take_effect(call):
            await self._confirm(begun)
        return tool

    def _tool(self, call: ToolCallPart) -> Tool[..., Any]:
        if call.malformed is not None:
            raise ToolError(_unreadable(call.malformed))
        tool = self._agent.tool(call.name)
        if tool is None:
            known = ", ".join(spec.name for spec in self._agent.specs) or "none"
            raise ToolError(f"there is no tool named {call.name!r}; the tools are: {known}")
        return tool

    def _completed(
        self, call: ToolCallPart, content: Any, is_error: bool, change: StateChange
    ) -> ToolCompleted:
        return ToolCompleted(
            seq=self._log.next,
            first=self._log.first,
            step=self._step,
            call_id=call.id,
            name=call.name,
            content=content,
            is_error=is_error,
            change=change,
        )

    def _unfit(self, encoded: bytes) -> str | None:
        """What is wrong with a result that could not travel."""
        limit = self._log.event_limit
        if len(encoded) > limit:
            return (
                f"the tool's result and state changes have {len(encoded):,} bytes, more than the {limit:,} "
                "that a message may have: ask for less at a time"
            )
        with contextlib.suppress(InvalidTurn):
            codec.check_depth(encoded, around=_AROUND)
            return None
        return f"the tool's state changes are nested more than {codec.MAX_DEPTH - _AROUND} levels deep"


def _unreadable(arguments: str) -> str:
    """The text for the model whose call has no arguments to run it with."""
    if not arguments.strip(" {}"):
        return "the call was cut off before its arguments, and did not run: make it again"
    return f"the call did not run: its arguments are not a whole JSON object: {arguments[:200]}"
