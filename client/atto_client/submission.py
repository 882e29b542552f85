"""Submitting a turn: the broker's acknowledgement is its acceptance."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from datetime import datetime

from atto.broker.jetstream import JetStream, PubAck
from atto.broker.refusals import MESSAGE_TOO_LARGE, STREAM_FULL, STREAM_NOT_FOUND, SUBJECT_FULL
from atto.protocol import codec, ids
from atto.protocol.errors import (
    AcceptanceUnknown,
    BrokerRefused,
    BrokerUnavailable,
    InvalidTurn,
    NoResponders,
    Overloaded,
    SessionBacklogFull,
    TopologyMissing,
    TurnTooLarge,
)
from atto.protocol.messages import InputPart
from atto.protocol.subjects import Subjects
from atto.protocol.turns import Turn

_HEADER_NAME = re.compile(r"[!#-9;-~]+", re.ASCII)

OFFER_PATIENCE = 2.0
"""Seconds in which a broker says that it has a turn; while replicas elect a leader, nobody says anything."""
RETRY_PAUSE = 0.1
"""Seconds before a turn is offered again to a broker that had nobody to take it."""


class Submission:
    """A turn on its way to acceptance, under one id for the broker, however often it is offered.

    Another submission of the same run is another message, and still the same run: workers see to that.
    Raises `InvalidSessionId`, `InvalidRunId`, `InvalidTurn`.
    """

    def __init__(
        self,
        session: str,
        user_input: str | Sequence[InputPart],
        *,
        run_id: str | None,
        expires: datetime | None,
        metadata: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
    ) -> None:
        if expires is not None and not isinstance(expires, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidTurn(f"`expires` is a datetime with an offset from UTC, not {expires!r}")
        if not isinstance(user_input, str | Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidTurn(f"input is a text or a list of parts, not {user_input!r}")
        self.session = session
        self.is_named = run_id is not None
        self.run_id = ids.new_run_id() if run_id is None else run_id
        message_id = ids.message_id(session, self.run_id)
        try:
            turn = Turn(
                input=user_input if isinstance(user_input, str) else tuple(user_input),
                run_id=self.run_id,
                expires=expires,
                metadata=dict(metadata or {}),
            )
            self._body = codec.encode(turn)
        except (TypeError, ValueError) as error:
            raise InvalidTurn(f"turn is not valid: {error}") from None
        codec.decode_turn(self._body)
        self._headers = {**_checked(headers or {}), "Nats-Msg-Id": message_id}

    async def accept(self, jetstream: JetStream, subjects: Subjects, *, patience: float) -> PubAck:
        """Returns once the broker has the turn; `duplicate` if it had it before.

        Offers it again, under the same id, for `patience` seconds. Raises `SessionBacklogFull`, `Overloaded`,
        `TurnTooLarge`, `TopologyMissing`, `BrokerUnavailable` (it was not accepted), `AcceptanceUnknown`.
        """
        subject = subjects.turn(self.session)
        deadline = asyncio.get_running_loop().time() + patience
        maybe_accepted = False
        while True:
            left = deadline - asyncio.get_running_loop().time()
            try:
                return await jetstream.publish(
                    subject, self._body, headers=self._headers, timeout=max(0.05, min(left, OFFER_PATIENCE))
                )
            except BrokerRefused as error:
                raise self._explained(error) from error
            except NoResponders as error:
                if left <= 0:
                    raise self._gave_up(maybe_accepted, error) from error
                await check_declared(jetstream, subjects)
                await asyncio.sleep(RETRY_PAUSE)
            except BrokerUnavailable as error:
                maybe_accepted = True
                if left <= 0 or jetstream.is_closed:
                    raise self._gave_up(maybe_accepted, error) from error
                await asyncio.sleep(RETRY_PAUSE)

    def _gave_up(self, maybe_accepted: bool, error: BrokerUnavailable) -> Exception:
        if not maybe_accepted:
            return error
        return AcceptanceUnknown(
            f"the broker did not say whether it took run {self.run_id} of session {self.session!r}: {error}. "
            "Submit it again with the same run_id: it runs once, and if it was taken, that attaches to it.",
            run_id=self.run_id,
        )

    def _explained(self, error: BrokerRefused) -> Exception:
        if error.err_code == MESSAGE_TOO_LARGE or (
            error.err_code == STREAM_FULL and "message size" in error.description
        ):
            return TurnTooLarge(
                f"the turn has {len(self._body):,} bytes, more than the broker takes ({error.description}): "
                "send large content by URL instead of inline"
            )
        if error.err_code == SUBJECT_FULL and "per subject" in error.description:
            return SessionBacklogFull(
                f"session {self.session!r} has as many unfinished turns as it may: "
                "wait until one has ended, then submit again"
            )
        if error.err_code == SUBJECT_FULL or error.status == 503:
            return Overloaded(
                f"the namespace takes no more turns now ({error.description}): back off, then submit again"
            )
        return error


def _checked(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or not value.isprintable():
            raise InvalidTurn(
                f"header {name!r}: {value!r} cannot travel: use one line, and no space in the name"
            )
    return headers


async def check_declared(jetstream: JetStream, subjects: Subjects) -> None:
    """Raises `TopologyMissing` if that is certain; a broker that is starting up is not."""
    try:
        await jetstream.api(f"STREAM.INFO.{subjects.turns_stream}")
    except BrokerRefused as error:
        if error.err_code == STREAM_NOT_FOUND:
            raise TopologyMissing(
                f"namespace {subjects.namespace!r} has not been declared on this broker: start a worker in it"
            ) from None
    except BrokerUnavailable:
        return
