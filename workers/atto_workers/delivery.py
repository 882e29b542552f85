"""A turn as the broker delivered it, and the ownership under which it was."""

from __future__ import annotations

import asyncio
import enum
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from nats.aio.msg import Msg

from atto.protocol import codec
from atto.protocol.errors import AttoError, CallerError, InvalidTurn
from atto.protocol.ids import decode_session, encode_run, run_id_of_sequence
from atto.protocol.subjects import Subjects
from atto.protocol.turns import Turn

if TYPE_CHECKING:
    from atto_workers.mailbox import Mailbox
    from atto_workers.ownership import PartitionKey, Tenure


_log = logging.getLogger("atto.worker")

REASON_LIMIT = 1000
"""Characters kept of why a turn cannot be run: it may quote the turn."""
UNKNOWN_HORIZON = sys.maxsize
"""Until it is known, every turn counts as one that may have been delivered before."""


class ClaimState(enum.Enum):
    """How a claim stands."""

    OPEN = "open"
    CLOSING = "handing back: what runs may finish, nothing new begins"
    LOST = "lost: another worker owns the partition"


class Claim:
    """One ownership of one partition, from the creation of its consumer to the end of it.

    `horizon`: turns up to this stream sequence may have been delivered to an earlier owner.
    `restored`: how often the consumer that delivers was made again, under its name. `from_silent`: it was
    taken from a worker that may have lived, and gave no answer.
    """

    def __init__(
        self, partition: PartitionKey, tenure: Tenure, horizon: int, *, from_silent: bool = False
    ) -> None:
        self.partition: PartitionKey = partition
        self.tenure = tenure
        self.horizon = horizon
        self.restored = 0
        self.from_silent = from_silent
        self.state = ClaimState.OPEN
        self.held: dict[int, Delivery] = {}
        self.mailboxes: dict[str, Mailbox] = {}

    @property
    def is_open(self) -> bool:
        """Whether turns may begin."""
        return self.state is ClaimState.OPEN

    @property
    def is_lost(self) -> bool:
        """Whether another worker speaks for these sessions now: nothing may be published or acknowledged."""
        return self.state is ClaimState.LOST


class Place(NamedTuple):
    """Where a message lies, read from its reply subject. `number` counts the consumer's deliveries."""

    consumer: str
    deliveries: int
    sequence: int
    number: int
    timestamp_ms: int


def place_of(reply: str) -> Place | None:
    """Takes `$JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<deliveries>.<sequence>.…` apart.

    None for anything else.
    """
    tokens = reply.split(".")
    at = 2 if len(tokens) == 9 else 4
    try:
        deliveries, sequence, number, timestamp = map(int, tokens[at + 2 : at + 6])
    except ValueError:
        return None
    return Place(tokens[at + 1], deliveries, sequence, number, timestamp // 1_000_000)


class Problem(NamedTuple):
    """Why a turn cannot be run."""

    code: str
    reason: str


class Content(NamedTuple):
    """A turn that can be run."""

    turn: Turn
    session: str
    run_id: str


class Delivery:
    """One turn, as far as it can be made out.

    `fresh`: certainly the first delivery of this message. `content` is None for one that cannot be run; then
    `problem` says why, and `session` and `run_id` are None where they cannot be known. `token` and
    `run_token` are the ids as subjects have them. `reply`: where it is acknowledged; empty: nowhere.
    """

    def __init__(self, claim: Claim, place: Place, message: Msg, subjects: Subjects) -> None:
        self.claim = claim
        self.sequence = place.sequence
        self.timestamp_ms = place.timestamp_ms
        self.fresh = place.deliveries == 1 and place.sequence > claim.horizon
        self.subject = message.subject
        self.data = message.data
        self.reply = message.reply
        self.headers: Mapping[str, str] = message.headers or {}
        _, self.token, self._is_answer = subjects.stored_turn(message.subject)
        self.session: str | None = None
        self.run_id: str | None = None
        self.run_token = ""
        self.content: Content | None = None
        self.problem: Problem | None = None
        try:
            self._read()
        except AttoError as error:
            self.problem = Problem(error.code, str(error)[:REASON_LIMIT])
        except Exception as error:  # noqa: BLE001 - whatever a reader makes of foreign bytes
            self.content = None
            self.problem = Problem("invalid_turn", f"the turn cannot be read: {error!r}"[:REASON_LIMIT])
            _log.exception("turn %d cannot be read", self.sequence)

    def deadline(self) -> float | None:
        """When the turn expires, in the event loop's time."""
        expires = None if self.content is None else self.content.turn.expires
        if expires is None:
            return None
        left = (expires - datetime.now(UTC)).total_seconds()
        return asyncio.get_running_loop().time() + left

    def _read(self) -> None:
        self.session = decode_session(self.token)
        try:
            turn = codec.decode_turn(self.data)
        except CallerError:
            self.run_id = self._run_id(codec.probe_run_id(self.data))
            raise
        self.run_id = self._run_id(turn.run_id)
        if self._is_answer != (turn.resume is not None):
            # Whoever may submit turns need not have the right to answer, nor the other way round.
            raise InvalidTurn(
                "turn is not valid: one with `resume` is published to the subject of answers, and no other is"
            )
        self.content = Content(turn, self.session, self.run_id)

    def _run_id(self, named: str | None) -> str:
        """The body's, else that of the place in the stream. Raises `InvalidRunId`."""
        run_id = named or run_id_of_sequence(self.sequence, self.timestamp_ms)
        self.run_token = encode_run(run_id)
        return run_id
