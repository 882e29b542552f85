"""A server does not check where an answer is sent. As shipped, a caller's reply subject leads nowhere."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from nats.aio.client import Client as Connection

from atto.broker.server import EmbeddedBroker
from atto_client import Client
from atto_workers import Worker
from tests.permissions.deployment import declare, echo, login, serving, trying

TARGETS = {
    "overwrite a session": "$KV.atto-sessions.user-123",
    "cancel a run": "atto.cancel.user-123.run",
    "forge an event": "atto.event.user-123.run",
    "fence off an attempt": "atto.fence.user-123.run",
    "forge a dead letter": "atto.dead.user-123",
    "forge presence": "$KV.atto-members.forged",
    "call the workers": "atto.workers",
    "ping a worker": "atto.worker.0123456789ab",
    "take a partition away": "$JS.API.CONSUMER.DELETE.atto-TURNS.p0-worker-nonce",
    "purge the sessions": "$JS.API.STREAM.PURGE.KV_atto-sessions",
    "create a stream": "$JS.API.STREAM.CREATE.mine",
}
SUBMIT = ("atto.turn.user-456", b'{"input": "hi"}')
REPLAY = (
    "$JS.API.DIRECT.GET.atto-EVENTS",
    json.dumps({"seq": 1, "batch": 10, "next_by_subj": "atto.event.user-123.*"}).encode(),
)
REQUESTS = {
    "atto-producer": [SUBMIT],
    "atto-client": [SUBMIT, REPLAY, ("atto.snapshot.user-123", b""), ("atto.cancel.user-456.run", b"{}")],
}


def with_an_admin_that_hears_everything(text: str) -> str:
    """The account's, whatever crosses into it."""
    return text.replace('subscribe: ["atto.>", "_INBOX.atto.admin.', 'subscribe: [">", "_INBOX.atto.admin.')


@pytest.fixture(scope="module")
async def isolated(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[EmbeddedBroker]:
    """tenant.conf, as the deployments ship it."""
    directory = tmp_path_factory.mktemp("tenant")
    async with serving(directory, "tenant.conf", change=with_an_admin_that_hears_everything) as broker:
        await declare(broker.url, **login("atto-admin"))
        yield broker


async def attack(broker: EmbeddedBroker, user: str, target: str, spy: Connection) -> int:
    """How many answers to the user's requests came to the target."""
    spoken = await spy.subscribe(target)
    await spy.flush()
    async with trying(broker.url, **login(user)) as tried:
        for subject, data in REQUESTS[user]:
            assert await tried.publish(subject, data, reply=target) == []
        await tried.connection.request(*SUBMIT)  # answered after all of these
    await spy.flush()
    return spoken.pending_msgs


@pytest.mark.parametrize("user", REQUESTS)
@pytest.mark.parametrize("target", [pytest.param(target, id=what) for what, target in TARGETS.items()])
async def test_a_reply_subject_leads_nowhere_in_the_tenants_account(isolated, user: str, target: str):
    async with (
        Worker(echo(), nats=isolated.url, **login("atto-worker")),
        Client(isolated.url, **login("atto-client")) as client,
        trying(isolated.url, **login("atto-admin")) as admin,
    ):
        assert (await client.run("user-123", "hi").result()).text == "hi"
        before = await client.snapshot("user-123")
        assert await attack(isolated, user, target, admin.connection) == 0
        assert await client.snapshot("user-123") == before
        assert (await client.run("user-123", "again").result()).text == "again"


async def test_within_one_account_it_is_written_to_as_the_configuration_warns(tmp_path: Path):
    """So that the test above can fail."""
    async with serving(tmp_path, "users.conf", change=with_an_admin_that_hears_everything) as broker:
        await declare(broker.url, **login("atto-admin"))
        async with trying(broker.url, **login("atto-admin")) as admin:
            assert await attack(broker, "atto-producer", TARGETS["overwrite a session"], admin.connection) > 0
            assert await attack(broker, "atto-producer", TARGETS["cancel a run"], admin.connection) > 0
