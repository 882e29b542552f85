"""The bucket of sessions is deleted under a running worker."""

import asyncio

from atto.broker.jetstream import JetStream
from atto.protocol.subjects import Subjects
from atto.stores import NatsKvStore
from tests.integration.test_main_job import echo


async def test_turns_wait_for_a_bucket_that_was_deleted_until_it_is_there_again(
    worker, client, jetstream: JetStream, namespace: str
):
    async with asyncio.timeout(30), worker(echo) as running:
        assert (await client.run("s", "one").result()).version == 1
        await jetstream.api(f"STREAM.DELETE.KV_{Subjects(namespace).sessions_bucket}")
        unready = await running.unready() or ""
        assert f"the sessions bucket '{namespace}-sessions' is not there" in unready
        assert "`atto declare` makes it" in unready
        waiting = asyncio.create_task(client.run("new", "two").result())
        while not any(claim.held for claim in running._steward.claims.values()):
            await asyncio.sleep(0.01)
        await NatsKvStore(jetstream, namespace).declare()
        assert (await waiting).text == "1: two"
        assert await running.unready() is None
