"""Tenants by account, and callers in accounts of their own: accounts.conf."""

import asyncio
import json

import pytest

from atto_client import Client, NoWorkers
from atto_workers import Worker
from tests.permissions.deployment import echo, inbox, login, trying


async def test_a_tenant_whose_clients_and_producers_live_in_other_accounts(tenants):
    async with (
        Worker(echo(), nats=tenants.url, **login("acme-worker")),
        Worker(echo(), nats=tenants.url, **login("acme-worker")),
        Client(tenants.url, **login("acme-client")) as client,
        Client(tenants.url, **login("acme-producer")) as producer,
    ):
        run = client.run("user-123", "x" * 100_000)
        live = [event async for event in run]
        assert [event async for event in client.attach("user-123", run.run_id)] == live
        fired = await producer.submit("user-123", "fired")
        assert (await client.attach("user-123", fired.run_id).result()).text == "fired"
        assert (await client.snapshot("user-123")).version == 2
        await client.cancel("user-123", "done")


async def test_no_worker_is_told_across_accounts(tenants):
    async with Client(tenants.url, **login("acme-client")) as client:
        with pytest.raises(NoWorkers):
            await client.snapshot("user-123")


async def test_a_tenant_sees_nothing_of_another_although_all_names_are_the_same(tenants):
    async with (
        Worker(echo(), nats=tenants.url, **login("acme-worker")),
        Worker(echo(), nats=tenants.url, **login("globex-worker")),
        Client(tenants.url, **login("acme-client")) as acme,
        Client(tenants.url, **login("globex-client")) as globex,
        trying(tenants.url, **login("globex-client")) as spy,
    ):
        overheard = await spy.connection.subscribe("atto.event.*.*")
        await spy.refused()
        run = acme.run("shared-name", "secret of acme")
        assert (await run.result()).text == "secret of acme"
        assert (await globex.snapshot("shared-name")).version == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await globex.attach("shared-name", run.run_id).result()
        await globex.cancel("shared-name", run.run_id)
        assert (await globex.run("shared-name", "of globex").result()).text == "of globex"
        assert (await acme.snapshot("shared-name")).version == 1
        heard = [json.loads((await overheard.next_msg()).data) for _ in range(overheard.pending_msgs)]
    assert heard
    assert "acme" not in str(heard)


@pytest.mark.parametrize(
    "target", ["$KV.atto-sessions.user-123", "atto.event.user-123.run", "atto.cancel.user-123.run"]
)
async def test_an_answer_that_is_sent_elsewhere_leaves_a_tenant_alone(tenants, target):
    """Within one account it would be written there: a server does not check where an answer goes."""
    submit = b'{"input": "hi"}'
    replay = json.dumps({"seq": 1, "batch": 10, "next_by_subj": "atto.event.user-123.*"}).encode()
    async with (
        Worker(echo(), nats=tenants.url, **login("acme-worker")),
        Client(tenants.url, **login("acme-client")) as client,
        trying(tenants.url, **login("acme-admin")) as admin,
        trying(tenants.url, **login("acme-producer")) as producer,
        trying(tenants.url, **login("acme-client")) as another,
    ):
        await client.run("user-123", "hi").result()
        before = await client.snapshot("user-123")
        spoken = await admin.connection.subscribe(target)
        await admin.refused()
        assert await producer.publish("atto.turn.user-456", submit, reply=target) == []
        assert await another.publish("$JS.API.DIRECT.GET.atto-EVENTS", replay, reply=target) == []
        assert await another.publish("atto.snapshot.user-123", reply=target) == []
        await another.connection.request("atto.turn.user-456", submit)  # after all of that
        await client.snapshot("user-123")
        await admin.refused()
        assert spoken.pending_msgs == 0
        assert await client.snapshot("user-123") == before
        assert (await client.run("user-123", "again").result()).text == "again"


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("acme-producer", "atto.cancel.user-123.run"),
        ("acme-producer", "$JS.API.DIRECT.GET.atto-EVENTS"),
        ("acme-producer", "atto.event.user-123.run"),
        ("acme-client", "atto.event.user-123.run"),
        ("acme-client", "$JS.API.STREAM.INFO.atto-TURNS"),
        ("acme-client", "$JS.API.CONSUMER.CREATE.atto-TURNS"),
        ("acme-worker", "$JS.API.STREAM.DELETE.atto-TURNS"),
        ("globex-worker", "$JS.API.STREAM.CREATE.mine"),
        ("globex-client", "$JS.API.CONSUMER.CREATE.atto-EVENTS"),
    ],
)
async def test_the_roles_are_as_narrow_as_in_one_account(tenants, user, subject):
    async with trying(tenants.url, **login(user)) as tried:
        assert len(await tried.publish(subject, b"{}")) == 1


async def test_an_inbox_of_the_other_tenant_is_silent(tenants):
    async with (
        Worker(echo(), nats=tenants.url, **login("globex-worker")),
        Client(tenants.url, **login("globex-client")) as globex,
        trying(tenants.url, **login("acme-admin")) as spy,
    ):
        overheard = await spy.connection.subscribe(f"{inbox('globex-client')}.>")
        assert await spy.refused() == []
        await globex.run("user-123", "hi").result()
        await globex.snapshot("user-123")
        await spy.refused()
        assert overheard.pending_msgs == 0
