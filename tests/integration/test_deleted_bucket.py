"""The bucket of sessions is deleted under a running worker."""

import asyncio

from atto.broker.jetstream import JetStream
from atto.protocol.subjects import Subjects
from atto.stores import NatsKvStore
from atto_workers.backoff import Backoff
from atto_workers.run import commit
from tests.integration.test_main_job import echo


async def test_turns_wait_for_a_bucket_that_was_deleted_until_it_is_there_again(
    worker, client, jetstream: JetStream, namespace: str, monkeypatch, caplog
):
    """However often they ask: it is the operator's to mend."""
    asked = 0
    pause = commit._pause

    async def counting(backoff) -> None:
        nonlocal asked
        asked += 1
        await pause(Backoff(base=0.01, cap=0.01, until=backoff._until))

    monkeypatch.setattr(commit, "_pause", counting)
    async with asyncio.timeout(30), worker(echo) as running:
        assert (await client.run("s", "one").result()).version == 1
        await jetstream.api(f"STREAM.DELETE.KV_{Subjects(namespace).sessions_bucket}")
        unready = await running.unready() or ""
        assert f"the sessions bucket '{namespace}-sessions' was deleted" in unready
        assert "`atto declare` makes it again" in unready
        waiting = asyncio.create_task(client.run("new", "two").result())
        while asked < 3 * commit.STORE_TRIES:
            await asyncio.sleep(0.01)
        await NatsKvStore(jetstream, namespace).declare()
        assert (await waiting).text == "1: two"
        assert await running.unready() is None
    bucket = f"the sessions bucket '{namespace}-sessions'"
    assert caplog.text.count(f"{bucket} was deleted: turns wait; `atto declare` makes it again, empty") == 1
    assert "cannot be run" not in caplog.text
