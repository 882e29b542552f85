"""The dead-letter stream: turns that could not be run, as they came, with the reason in their headers."""

from datetime import UTC, datetime

from atto.broker.jetstream import MESSAGE_TOO_LARGE, JetStream
from atto.protocol.errors import BrokerRefused
from atto.protocol.subjects import Subjects
from atto_workers.delivery import Delivery, Problem

CODE = "Atto-Code"
REASON = "Atto-Reason"
SUBJECT = "Atto-Subject"
SEQUENCE = "Atto-Sequence"
RUN = "Atto-Run"
TIME = "Atto-Time"
TRUNCATED = "Atto-Truncated"

_REASON_LIMIT = 1000


class DeadLetters:
    """Files turns under `<ns>.dead.<session>`."""

    def __init__(self, jetstream: JetStream, subjects: Subjects) -> None:
        self._jetstream = jetstream
        self._subjects = subjects

    async def file(self, delivery: Delivery, problem: Problem) -> None:
        """Returns once the broker has the letter; filing it again soon is a no-op.

        A body that leaves no room for the headers is cut, and `Atto-Truncated` says how long it was.
        Raises `BrokerUnavailable`.
        """
        headers = {
            "Nats-Msg-Id": f"{delivery.sequence}-{delivery.timestamp_ms}",
            CODE: problem.code,
            REASON: _header(problem.reason),
            SUBJECT: _header(delivery.subject),
            SEQUENCE: str(delivery.sequence),
            TIME: datetime.now(UTC).isoformat(),
        }
        if delivery.run_id is not None:
            headers[RUN] = _header(delivery.run_id)
        subject = self._subjects.dead(delivery.token if delivery.session is None else delivery.session)
        try:
            await self._jetstream.publish(subject, delivery.data, headers=headers)
        except BrokerRefused as error:
            if error.err_code != MESSAGE_TOO_LARGE:
                raise
            headers[TRUNCATED] = str(len(delivery.data))
            await self._jetstream.publish(subject, delivery.data[: len(delivery.data) // 2], headers=headers)


def _header(text: str) -> str:
    """One line of ASCII: what a NATS header can hold whatever came in."""
    return " ".join(text[:_REASON_LIMIT].encode("ascii", "backslashreplace").decode().split())
