"""The usual options of nats-py reach the broker, and no secret reaches a message."""

import logging

import pytest

from atto import Agent, ScriptedModel
from atto.broker.server import EmbeddedBroker
from atto_client import BrokerUnavailable, Client
from atto_workers import Topology, Worker

USERS = "authorization { users: [{user: ann, password: s3cret-of-ann}] }"


async def test_user_and_password(caplog: pytest.LogCaptureFixture):
    agent = Agent("echo", ScriptedModel.of(lambda request: request.messages[-1].text))
    login = {"user": "ann", "password": "s3cret-of-ann"}
    async with EmbeddedBroker(config=USERS) as broker:
        async with (
            Worker(agent, nats=broker.url, topology=Topology(partitions=1), **login),
            Client(broker.url, **login) as client,
        ):
            assert (await client.run("s", "hi").result()).text == "hi"
        with_login = broker.url.replace("://", "://ann:s3cret-of-ann@")
        async with Client(with_login) as client:
            await client.cancel("s", "r")
        with caplog.at_level(logging.DEBUG), pytest.raises(BrokerUnavailable) as refused:
            async with Client(broker.url, **{**login, "password": "s3cret-and-wrong"}, connect_timeout=0.5):
                pass
        assert "uthorization" in str(refused.value)
        assert "s3cret" not in str(refused.value) + repr(refused.value) + caplog.text
    with caplog.at_level(logging.DEBUG), pytest.raises(BrokerUnavailable) as away:
        async with Client(with_login, connect_timeout=0.3):
            pass
    assert "s3cret" not in str(away.value) + caplog.text
