"""A worker's start waits for a broker that is not ready yet, and not for one that never will be."""

import asyncio

import pytest

from atto.protocol.errors import BrokerRefused, BrokerUnavailable, NoResponders
from atto_workers.backoff import Backoff
from atto_workers.starting import patiently
from atto_workers.topology import BrokerUnfit


def refused(status: int) -> BrokerRefused:
    return BrokerRefused("no", status=status, err_code=10008, description="no")


class Broker:
    """Fails with these errors, one after the other, and then answers."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.asked = 0

    async def __call__(self) -> str:
        self.asked += 1
        if self._errors:
            raise self._errors.pop(0)
        return "yes"


def at_once() -> Backoff:
    return Backoff(sleep=lambda _: asyncio.sleep(0))


async def test_what_passes_is_waited_for_and_said_once(caplog):
    broker = Broker(BrokerUnavailable("no answer"), refused(503), NoResponders("nobody"))
    assert await patiently(broker, "a stream", backoff=at_once()) == "yes"
    assert broker.asked == 4
    [said] = [record.getMessage() for record in caplog.records]
    assert "a stream" in said
    assert "no answer" in said


@pytest.mark.parametrize("error", [BrokerUnfit("too old"), refused(400), ValueError("x")])
async def test_what_does_not_pass_is_raised_at_once(error):
    broker = Broker(error)
    with pytest.raises(type(error)):
        await patiently(broker, "a stream", backoff=at_once())
    assert broker.asked == 1


async def test_patience_ends():
    broker = Broker(*[BrokerUnavailable("no answer")] * 3)
    with pytest.raises(BrokerUnavailable):
        await patiently(broker, "a stream", patience=0.0, backoff=at_once())
    assert broker.asked == 1
