"""A worker keeps its sessions where a URL says."""

import pytest

from atto import Agent
from atto.models import ScriptedModel
from atto.protocol.errors import StoreUnavailable, UnknownStore
from atto.stores import NatsKvStore, SqliteStore
from atto_workers import Runtime


def counting(request):
    return f"{sum(message.role == 'user' for message in request.messages)}"


async def answers(client, *turns):
    return [(await client.run("s", turn).result()).text for turn in turns]


async def test_a_sqlite_file_outlives_the_worker(worker, client, tmp_path):
    path = tmp_path / "sessions.db"
    for expected in (["1", "2"], ["3", "4"]):
        async with worker(counting, store=f"sqlite:///{path}"):
            assert await answers(client, "hi", "again") == expected
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # its log was merged when it was closed
    async with SqliteStore(path) as store:
        assert (await store.load("s")).version == 4


async def test_memory_is_gone_with_the_worker(worker, client):
    for _ in range(2):
        async with worker(counting, store="memory:"):
            assert await answers(client, "hi", "again") == ["1", "2"]


@pytest.mark.parametrize("options", [{}, {"store": "nats-kv"}])
async def test_the_brokers_own_bucket_is_the_default(worker, client, jetstream, namespace, options):
    async with worker(counting, **options):
        assert await answers(client, "hi") == ["1"]
    assert (await NatsKvStore(jetstream, namespace).load("s")).version == 1


async def test_a_runtime_hands_the_url_on(broker, namespace, tmp_path):
    agent = Agent("tester", ScriptedModel.of(counting))
    url = f"sqlite:///{tmp_path}/sessions.db"
    async with Runtime(agent, nats=broker.url, namespace=namespace, store=url) as runtime:
        assert await answers(runtime, "hi") == ["1"]
    async with SqliteStore(tmp_path / "sessions.db") as store:
        assert (await store.load("s")).version == 1


@pytest.mark.parametrize(
    ("url", "error"),
    [("redis://localhost", UnknownStore), ("sqlite:////no/such/directory/s.db", StoreUnavailable)],
)
async def test_a_worker_whose_store_cannot_be_opened_does_not_start(worker, url, error):
    with pytest.raises(error):
        async with worker(counting, store=url):
            pass
