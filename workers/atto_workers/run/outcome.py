"""How a run ends: the terminal event for what happened, and whether its turn is a dead letter besides."""

from datetime import UTC, datetime
from typing import NamedTuple

from atto.aio.user_code import describe, words
from atto.protocol.errors import ModelError, StoreCorrupt, StoreError, StoreUnavailable
from atto.protocol.events import RunCancelled, RunFailed, TerminalEvent
from atto.protocol.turns import Turn
from atto_workers.delivery import Problem
from atto_workers.run.loop import InstructionFailed, StepsExhausted
from atto_workers.run.scope import Stopped, StopReason

REASON_LIMIT = 4000
"""Characters of an error's text that a terminal event repeats."""


class AttemptsExhausted(Exception):
    """The turn was begun as often as it may be, by all its owners together, and never ended."""


class JournalLost(Exception):
    """Whether, and how far, the turn was run before cannot be known any more, and its tools have effects."""


class SessionDeleted(Exception):
    """The session was deleted while the run was under way."""


class Outcome(NamedTuple):
    """`dead`: why the turn goes to the dead-letter stream; None if it does not. `commits`: whether the end is
    to be committed; one that is told from its record is already.
    """

    terminal: TerminalEvent
    dead: Problem | None = None
    commits: bool = True


DEAD = frozenset(("journal_lost", "attempts_exhausted", "store_error", "internal"))
"""Codes of failures that are looked into: their turns are dead letters."""


def now() -> datetime:
    """The time that events carry."""
    return datetime.now(UTC)


def failed(seq: int, problem: Problem, *, retryable: bool = False) -> RunFailed:
    """The terminal event of a run that has no answer. Whatever the reason says, it can travel."""
    message = problem.reason[:REASON_LIMIT].encode("utf-8", "backslashreplace").decode()
    return RunFailed(seq=seq, time=now(), code=problem.code, message=message, retryable=retryable)


def unsupported(turn: Turn, agent: str) -> Problem | None:
    """Why a turn that can be read is not begun; None if it is. `agent`: the one that is here."""
    if turn.resume is not None:
        run = turn.resume.run_id
        return Problem("not_waiting", f"the session waits for no answer: no run {run!r} is suspended in it")
    if turn.agent and turn.agent != agent:
        return Problem("unknown_agent", f"there is no agent {turn.agent!r} here: there is {agent!r}")
    if turn.on_busy != "enqueue":
        return Problem(
            "not_supported",
            f"`on_busy` of {turn.on_busy!r} is not supported by this worker: leave it at `enqueue`",
        )
    return None


def outcome_of(error: Exception, seq: int) -> Outcome:
    """What an attempt that ended with `error` comes to; `seq` numbers the terminal event."""
    match error:
        case Stopped(reason=StopReason.CANCELLED):
            return Outcome(RunCancelled(seq=seq, time=now(), reason=error.detail))
        case Stopped():
            return Outcome(failed(seq, Problem("expired", words(error)), retryable=True))
        case ModelError():
            return Outcome(failed(seq, Problem("model_error", words(error)), retryable=error.transient))
        case StepsExhausted():
            return Outcome(failed(seq, Problem("max_steps", words(error))))
        case InstructionFailed():
            return Outcome(failed(seq, Problem("agent_error", words(error))))
        case SessionDeleted():
            return Outcome(failed(seq, Problem("session_deleted", words(error))), commits=False)
        case JournalLost():
            problem = Problem("journal_lost", words(error))
        case AttemptsExhausted():
            problem = Problem("attempts_exhausted", words(error))
        case StoreError():
            problem = Problem("store_error", describe(error))
        case _:
            problem = Problem("internal", describe(error))
    retryable = isinstance(error, StoreUnavailable)
    return Outcome(
        failed(seq, problem, retryable=retryable),
        problem,
        commits=not isinstance(error, StoreUnavailable | StoreCorrupt),
    )
