"""A run that ends without an answer: what its session keeps of it."""

from atto.agents import Agent
from atto.protocol.events import RunCancelled, RunFailed, StateChange
from atto.protocol.messages import Message, TextPart, ToolCallPart, ToolResultPart
from atto.protocol.sessions import Commit, compose
from atto.protocol.turns import cut_reason
from atto_workers.run.effects import has_acted
from atto_workers.run.journal import Progress, StepDone
from atto_workers.run.outcome import Outcome

INTERRUPTED = "the run was ended while this call ran: it has no result, and may have had its effect"
"""What a model reads of a call that had begun."""
NOT_BEGUN = "the run was ended before this call began: it did not run"
"""What a model reads of a call that had not."""


def commit_of(agent: Agent, run_id: str, user: Message, outcome: Outcome, progress: Progress) -> Commit:
    """The commit of a run that came as far as `progress` says and ends with `outcome`, which is no answer.

    What a person saw is kept of a cancelled run. Of one that failed only if it may have had an effect: else a
    bad input would be in the way of all that come after it.
    """
    keeps = isinstance(outcome.terminal, RunCancelled) or has_acted(agent, progress)
    messages, change = (), StateChange()
    if keeps and agent.unfinished == "keep":
        messages, change = _kept(user, progress)
    terminal = outcome.terminal
    is_cancelled = isinstance(terminal, RunCancelled)
    failure = terminal if isinstance(terminal, RunFailed) else None
    reason = terminal.reason if is_cancelled else "" if failure is None else failure.message
    return Commit(
        run_id=run_id,
        messages=messages,
        change=change,
        ended="cancelled" if is_cancelled else "failed",
        code="" if failure is None else failure.code,
        reason=cut_reason(reason),
        retryable=failure is not None and failure.retryable,
        input="" if messages else cut_reason(user.text),
        usage=sum((child.own_usage for child in progress.children.values()), progress.own_usage),
        agent=agent.name,
    )


def without_messages(commit: Commit, user: Message) -> Commit:
    """The same end, with nothing kept but its record."""
    return Commit(
        run_id=commit.run_id,
        ended=commit.ended,
        code=commit.code,
        reason=commit.reason,
        retryable=commit.retryable,
        input=cut_reason(user.text),
        usage=commit.usage,
        agent=commit.agent,
    )


def _kept(user: Message, progress: Progress) -> tuple[tuple[Message, ...], StateChange]:
    """A history that every provider accepts: each call has a result, and no message is empty."""
    messages, change = [user], StateChange()
    for done in progress.steps:
        messages.append(done.model.message)
        for event in done.results.values():
            change = compose(change, event.change)
        calls = done.model.message.tool_calls
        if calls:
            messages.append(Message("tool", tuple(_result(call, done) for call in calls)))
    words = "".join(progress.words)
    if words.strip():
        messages.append(Message("assistant", (TextPart(words),)))
    return tuple(messages), change


def _result(call: ToolCallPart, done: StepDone) -> ToolResultPart:
    event = done.results.get(call.id)
    if event is not None:
        return ToolResultPart(call.id, call.name, event.content, event.is_error)
    return ToolResultPart(
        call.id, call.name, INTERRUPTED if call.id in done.started else NOT_BEGUN, is_error=True
    )
