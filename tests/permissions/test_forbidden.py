"""One test for each thing that a role must not do: the broker of users.conf refuses it."""

import pytest

from atto.broker.connection import connected
from atto.broker.jetstream import JetStream
from atto_client import BrokerUnavailable, Client
from atto_workers import Worker
from tests.permissions.deployment import echo, login, trying

PRODUCER_MUST_NOT_PUBLISH = {
    "forge an event": "atto.event.user-123.run",
    "answer a wait": "atto.answer.user-123",
    "cancel a run": "atto.cancel.user-123.run",
    "read a snapshot": "atto.snapshot.user-123",
    "write a session": "$KV.atto-sessions.user-123",
    "replay events": "$JS.API.DIRECT.GET.atto-EVENTS",
    "read stored turns": "$JS.API.STREAM.MSG.GET.atto-TURNS",
    "remove a turn": "$JS.API.STREAM.MSG.DELETE.atto-TURNS",
    "take a turn": "$JS.API.CONSUMER.CREATE.atto-TURNS",
    "list streams": "$JS.API.STREAM.NAMES",
    "answer another's request": "_INBOX.atto.client.atto-client.1",
    "submit to another namespace": "other.turn.user-123",
}
CLIENT_MUST_NOT_PUBLISH = {
    "forge an event": "atto.event.user-123.run",
    "forge a dead letter": "atto.dead.user-123",
    "write a session": "$KV.atto-sessions.user-123",
    "read the sessions' bucket": "$JS.API.DIRECT.GET.KV_atto-sessions",
    "pose as a worker": "$KV.atto-members.forged",
    "call the workers": "atto.workers",
    "create a consumer of turns": "$JS.API.CONSUMER.CREATE.atto-TURNS",
    "create a named consumer of turns": "$JS.API.CONSUMER.CREATE.atto-TURNS.mine",
    "create a durable consumer of turns": "$JS.API.CONSUMER.DURABLE.CREATE.atto-TURNS.mine",
    "pull turns": "$JS.API.CONSUMER.MSG.NEXT.atto-TURNS.p0-worker-nonce",
    "acknowledge a turn": "$JS.ACK.atto-TURNS.p0-worker-nonce.1.1.1.1.0",
    "take a partition away": "$JS.API.CONSUMER.DELETE.atto-TURNS.p0-worker-nonce",
    "create a consumer of events": "$JS.API.CONSUMER.CREATE.atto-EVENTS.mine.atto.event.user-123.run",
    "read stored turns": "$JS.API.STREAM.MSG.GET.atto-TURNS",
    "read dead letters": "$JS.API.DIRECT.GET.atto-DEAD",
    "read other runs' cancellations": "$JS.API.DIRECT.GET.atto-CANCELS",
    "replay another namespace's events": "$JS.API.DIRECT.GET.other-EVENTS",
    "delete events": "$JS.API.STREAM.PURGE.atto-EVENTS",
    "list streams": "$JS.API.STREAM.NAMES",
    "answer another's request": "_INBOX.atto.client.another.1",
    "submit to another namespace": "other.turn.user-123",
    "cancel in another namespace": "other.cancel.user-123.run",
}
WORKER_MUST_NOT_PUBLISH = {
    "create a stream": "$JS.API.STREAM.CREATE.mine",
    "change a stream": "$JS.API.STREAM.UPDATE.atto-TURNS",
    "delete the turns": "$JS.API.STREAM.DELETE.atto-TURNS",
    "delete the events": "$JS.API.STREAM.DELETE.atto-EVENTS",
    "delete the sessions": "$JS.API.STREAM.DELETE.KV_atto-sessions",
    "purge the turns": "$JS.API.STREAM.PURGE.atto-TURNS",
    "purge the events": "$JS.API.STREAM.PURGE.atto-EVENTS",
    "remove one turn": "$JS.API.STREAM.MSG.DELETE.atto-TURNS",
    "restore a stream": "$JS.API.STREAM.RESTORE.mine",
    "copy a stream": "$JS.API.STREAM.SNAPSHOT.KV_atto-sessions",
    "read dead letters": "$JS.API.DIRECT.GET.atto-DEAD",
    "submit a turn": "atto.turn.user-123",
    "answer a wait": "atto.answer.user-123",
    "cancel a run": "atto.cancel.user-123.run",
    "speak in another namespace": "other.event.user-123.run",
    "read another namespace": "$JS.API.DIRECT.GET.KV_other-sessions",
    "own another namespace's partitions": "$JS.API.CONSUMER.DURABLE.CREATE.other-TURNS.p0-worker-nonce",
    "answer outside its namespace": "_INBOX.other.client.ann.1",
}
MUST_NOT_SUBSCRIBE = {
    "atto-producer": {
        "hear events": "atto.event.*.*",
        "hear turns": "atto.turn.*",
        "hear cancellations": "atto.cancel.*.*",
        "hear others' inboxes": "_INBOX.>",
        "hear a client's inbox": "_INBOX.atto.client.atto-client.>",
        "hear everything": ">",
    },
    "atto-client": {
        "hear turns": "atto.turn.*",
        "hear cancellations": "atto.cancel.*.*",
        "answer in the workers' place": "atto.snapshot.*",
        "answer a ping": "atto.worker.*",
        "hear another namespace's events": "other.event.*.*",
        "hear all namespaces' events": "*.event.*.*",
        "hear others' inboxes": "_INBOX.>",
        "hear all clients' inboxes": "_INBOX.atto.client.>",
        "hear a worker's inbox": "_INBOX.atto.worker.atto-worker.>",
        "hear sessions": "$KV.atto-sessions.>",
        "hear acknowledgements": "$JS.ACK.>",
        "hear everything": ">",
    },
    "atto-worker": {
        "hear turns past the stream": "atto.turn.*",
        "hear others' inboxes": "_INBOX.>",
        "hear clients' inboxes": "_INBOX.atto.client.>",
        "hear requests to JetStream": "$JS.API.>",
        "hear another namespace's cancellations": "other.cancel.*.*",
        "hear everything": ">",
    },
    "atto-admin": {
        "hear others' inboxes": "_INBOX.>",
        "hear another namespace's events": "other.event.*.*",
    },
}

_MUST_NOT_PUBLISH = {
    "atto-producer": PRODUCER_MUST_NOT_PUBLISH,
    "atto-client": CLIENT_MUST_NOT_PUBLISH,
    "atto-worker": WORKER_MUST_NOT_PUBLISH,
}


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        pytest.param(user, subject, id=f"{user} must not {what}")
        for user, things in _MUST_NOT_PUBLISH.items()
        for what, subject in things.items()
    ],
)
async def test_publishing(guarded, user, subject):
    async with trying(guarded.url, **login(user)) as tried:
        violations = await tried.publish(subject, b"{}")
    assert [subject.lower() in violation for violation in violations] == [True], violations


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        pytest.param(user, subject, id=f"{user} must not {what}")
        for user, things in MUST_NOT_SUBSCRIBE.items()
        for what, subject in things.items()
    ],
)
async def test_subscribing(guarded, user, subject):
    async with trying(guarded.url, **login(user)) as tried:
        violations = await tried.subscribe(subject)
    assert [subject.lower() in violation for violation in violations] == [True], violations


async def test_what_is_not_in_the_lists_is_seen_to_be_allowed(guarded):
    """So that the tests above can fail."""
    async with trying(guarded.url, **login("atto-client")) as tried:
        assert await tried.subscribe("atto.event.user-123.*") == []
        assert await tried.subscribe("_INBOX.atto.client.atto-client.>") == []
        assert await tried.publish("atto.cancel.nobody.run") == []


@pytest.mark.parametrize("target", ["$KV.atto-sessions.user-123", "atto.event.user-123.run"])
async def test_a_worker_does_not_write_for_those_who_may_not(guarded, target):
    """It could: it may publish there, and sends the answer to a request where that says."""
    async with (
        Worker(echo(), nats=guarded.url, **login("atto-worker")),
        Client(guarded.url, **login("atto-client")) as client,
        trying(guarded.url, **login("atto-client")) as tried,
        connected(guarded.url, name="admin", on_reconnect=lambda: None, **login("atto-admin")) as connection,
        JetStream(connection) as admin,
    ):
        await client.run("user-123", "hi").result()
        stream = "KV_atto-sessions" if target.startswith("$KV") else "atto-EVENTS"
        before = await admin.last(stream, target)
        assert await tried.publish("atto.snapshot.user-123", reply=target) == []
        await client.snapshot("user-123")  # answered after the other one
        assert await admin.last(stream, target) == before


async def test_a_worker_cannot_remove_the_keys_of_the_others_with_one_header(guarded):
    async with trying(guarded.url, **login("atto-worker")) as tried:
        key = "$KV.atto-members.mine"
        await tried.connection.request(key, b"{}")
        for rollup in ("all", "sub"):
            refused = await tried.connection.request(key, b"{}", headers={"Nats-Rollup": rollup})
            assert "rollup not permitted" in refused.data.decode()


async def test_nobody_comes_in_without_a_password_or_with_anothers(guarded):
    for options in ({}, {**login("atto-client"), "password": "password-of-atto-worker"}):
        with pytest.raises(BrokerUnavailable, match=r"(?i)authorization"):
            async with Client(guarded.url, connect_timeout=2.0, **options):
                pass


async def test_a_client_without_an_inbox_of_its_own_hears_no_answer(guarded):
    """The default prefix `_INBOX` would be everybody's."""
    options = {**login("atto-client"), "inbox_prefix": "_INBOX"}
    async with trying(guarded.url, **options) as tried:
        assert len(await tried.subscribe("_INBOX.mine.*")) == 1


async def test_an_answer_cannot_be_sent_as_an_acknowledgement(guarded):
    async with trying(guarded.url, **login("atto-producer")) as tried:
        reply = "$JS.ACK.atto-TURNS.p0-worker-nonce.1.1.1.1.0"
        violations = await tried.publish("atto.turn.user-456", b'{"input": "hi"}', reply=reply)
    assert ["reply" in violation for violation in violations] == [True], violations
