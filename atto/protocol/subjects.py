"""The subjects, streams and buckets of a namespace.

<ns>.turn.<session>              turns in; stored as <ns>.turn.<partition>.<session>
<ns>.answer.<session>            answers to what a session waits for; stored likewise
<ns>.event.<session>.<run>       events out
<ns>.fence.<session>.<run>       among workers: a later attempt at the run has begun
<ns>.cancel.<session>.<run>      cancellations in
<ns>.dead.<session>              turns that could not be run
<ns>.snapshot.<session>          request: the committed snapshot
<ns>.worker.<worker>             request: is this worker alive?
<ns>.workers                     among workers: one came, went, or let go of a partition
"""

import hashlib
import re
from typing import NamedTuple

from atto.protocol.ids import MAX_ID_BYTES, encode_run, encode_session, escape

_LONGEST_TOKEN = 3 * MAX_ID_BYTES
_KEPT_OF_TOKEN = 192
_DIGEST = 32
_LONGEST_REPLY = 1024
_NAMESPACE = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)


class StoredTurn(NamedTuple):
    """Where a turn lies: its partition (None: the server could not place it) and its session's token.

    `is_answer`: it was published as the answer to a wait.
    """

    partition: int | None
    token: str
    is_answer: bool = False


class Subjects:
    """Names everything that a namespace owns. Raises ValueError for a namespace that cannot be a token."""

    def __init__(self, namespace: str = "atto") -> None:
        if not _NAMESPACE.fullmatch(namespace):
            raise ValueError(f"namespace {namespace!r}: use 1 to 32 of the characters A-Z a-z 0-9 _ -")
        self.namespace = namespace
        self.turns_stream = f"{namespace}-TURNS"
        self.events_stream = f"{namespace}-EVENTS"
        self.cancels_stream = f"{namespace}-CANCELS"
        self.dead_stream = f"{namespace}-DEAD"
        self.sessions_bucket = f"{namespace}-sessions"
        self.members_bucket = f"{namespace}-members"
        self.turns = f"{namespace}.turn.*"
        self.answers = f"{namespace}.answer.*"
        self.submitted = f"{namespace}.*.*"
        self.events = f"{namespace}.event.*.*"
        self.fences = f"{namespace}.fence.*.*"
        self.cancels = f"{namespace}.cancel.*.*"
        self.dead_letters = f"{namespace}.dead.*"
        self.snapshots = f"{namespace}.snapshot.*"
        self.roll_call = f"{namespace}.workers"
        self._event = f"{namespace}.event."
        self._answer = f"{namespace}.answer."
        self._cancel = f"{namespace}.cancel."

    def __repr__(self) -> str:
        return f"Subjects({self.namespace!r})"

    def turn(self, session: str) -> str:
        """Where a turn of `session` is published."""
        return f"{self.namespace}.turn.{encode_session(session)}"

    def answer(self, session: str) -> str:
        """Where answers to what `session` waits for are published."""
        return f"{self.namespace}.answer.{encode_session(session)}"

    def partitioned(self, partitions: int) -> str:
        """The destination of the stream's subject transform, of what matches `submitted` (NATS:
        `partition(n, token)` is FNV-1a). Turns and answers of a session are in one partition.
        """
        return f"{self.namespace}.{{{{wildcard(1)}}}}.{{{{partition({partitions},2)}}}}.{{{{wildcard(2)}}}}"

    def partition(self, partition: int | None) -> list[str]:
        """The filters of what a partition holds; None is what the server could not place (`*`, `>`)."""
        if partition is None:
            return [self.turns, self.answers]
        return [f"{self.namespace}.{kind}.{partition}.*" for kind in ("turn", "answer")]

    def stored_turn(self, subject: str) -> StoredTurn:
        """Takes a stored turn's subject apart."""
        *_, placed, token = subject.split(".")
        is_answer = subject.startswith(self._answer)
        return StoredTurn(int(placed) if placed.isdecimal() else None, token, is_answer)

    def event(self, session: str, run: str) -> str:
        """Where the events of a run go."""
        return self.event_of(encode_session(session), encode_run(run))

    def event_of(self, session_token: str, run_token: str) -> str:
        """The same, of ids that are encoded already."""
        return f"{self._event}{session_token}.{run_token}"

    def fence_of(self, session_token: str, run_token: str) -> str:
        """Where each later attempt at a run says that it has begun, before it reads what others said."""
        return f"{self.namespace}.fence.{session_token}.{run_token}"

    def cancel(self, session: str, run: str) -> str:
        """Where a run's cancellation is published."""
        return self.cancel_of(encode_session(session), encode_run(run))

    def cancel_of(self, session_token: str, run_token: str) -> str:
        """The same, of ids that are encoded already."""
        return f"{self.namespace}.cancel.{session_token}.{run_token}"

    def cancelled(self, subject: str) -> tuple[str, str]:
        """The session's and the run's token of a cancellation's subject."""
        session, _, run = subject.removeprefix(self._cancel).partition(".")
        return session, run

    def dead(self, session_or_token: str) -> str:
        """Where a dead letter is filed: under the session, or under the token that was no session."""
        token = escape(session_or_token)
        if len(token) > _LONGEST_TOKEN:  # no session: the broker hangs up on a line of more than 4,096 bytes
            digest = hashlib.sha256(session_or_token.encode("utf-8", "surrogatepass")).hexdigest()
            token = f"{token[:_KEPT_OF_TOKEN]}-{digest[:_DIGEST]}"
        return f"{self.namespace}.dead.{token}"

    def snapshot(self, session: str) -> str:
        """Where a session's committed snapshot is asked for."""
        return f"{self.namespace}.snapshot.{encode_session(session)}"

    def worker(self, worker: str) -> str:
        """Where a worker answers as long as it lives."""
        return f"{self.namespace}.worker.{worker}"

    def may_be_answered(self, reply: str) -> bool:
        """Whether a reply subject is an inbox. A worker may write where those who ask may not: it answers to
        inboxes, never into streams or to the broker itself.
        """
        return 0 < len(reply) <= _LONGEST_REPLY and not reply.startswith(("$", f"{self.namespace}."))
